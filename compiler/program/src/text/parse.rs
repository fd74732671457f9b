//! Reads modules of programs.

use diag::{Cursor, Parsed};
use plan::{Access, Kernel, Manifest, Residency, ResidencyId};
use types::{Mesh, Runs};

use super::cursor::Parser;
use crate::{Program, RankModule};

/// Reads a module. The result is well-formed text, not yet a verified module.
pub fn parse(text: &str) -> Parsed<RankModule> {
    let mut p = Parser(Cursor::new(text));
    p.expect("ranks of")?;
    let mut mesh = vec![];
    p.expect("[")?;
    while !p.eat("]") {
        let name = p.word()?.to_owned();
        p.expect(":")?;
        mesh.push((name, p.number()?));
    }
    let mesh = Mesh::new(mesh).or_else(|e| p.fail(0, e.to_string()))?;
    p.expect("align")?;
    let alignment: u64 = p.number()?;
    if alignment == 0 {
        return p.fail(0, "buffers are aligned to 1 byte at least");
    }
    let is_pipeline = p.eat("pipeline");
    let (mut kernels, mut manifest): (Vec<Kernel>, _) = (vec![], Manifest::default());
    let (mut residencies, mut programs) = (vec![], vec![]);
    loop {
        if p.at_end() {
            let kernels = kernels.into();
            return Ok(RankModule { mesh, alignment, is_pipeline, kernels, manifest, residencies, programs });
        } else if p.eat("kernel") {
            kernels.push(p.kernel(kernels.len())?);
        } else if p.eat("parameter") {
            manifest.parameters.push(p.json()?);
        } else if p.eat("state") {
            manifest.states.push(p.json()?);
        } else if p.eat("ragged") {
            manifest.ragged.push(p.json()?);
        } else if p.eat("residency") {
            residencies.push(Residency { name: p.json()? });
        } else {
            p.expect("program")?;
            programs.push(p.program(&kernels)?);
        }
    }
}

impl Parser<'_> {
    pub(super) fn kernel(&mut self, index: usize) -> Parsed<Kernel> {
        let at = self.at;
        self.prefix('k')?;
        if self.number::<usize>()? != index {
            return self.fail(at, format!("kernels are numbered in their order: this one is k{index}"));
        }
        let symbol = self.json()?;
        self.expect("args")?;
        let start = self.at;
        let letters = self.word()?;
        let args: Option<Vec<Access>> = letters
            .chars()
            .map(|c| match c {
                'r' => Some(Access::Read),
                'w' => Some(Access::Write),
                'x' => Some(Access::ReadWrite),
                _ => None,
            })
            .collect();
        let Some(args) = args else {
            return self.fail(start, "arguments are `r` (read), `w` (write) or `x` (both)");
        };
        let mut k = Kernel {
            symbol,
            args,
            in_place: vec![],
            scalars: 0,
            max_parts: 1,
            flops: 0,
            products: 0,
            elementwise: 0,
            bytes: 0,
            workspace: 0,
        };
        loop {
            if self.eat("in_place") {
                let read = self.number()?;
                self.expect("=")?;
                k.in_place.push((read, self.number()?));
            } else if self.eat("parts") {
                k.max_parts = self.number()?;
            } else if self.eat("scalars") {
                k.scalars = self.number()?;
            } else if self.eat("flops") {
                k.flops = self.number()?;
            } else if self.eat("products") {
                k.products = self.number()?;
            } else if self.eat("elementwise") {
                k.elementwise = self.number()?;
            } else if self.eat("bytes") {
                k.bytes = self.number()?;
            } else if self.eat("workspace") {
                k.workspace = self.number()?;
            } else {
                return Ok(k);
            }
        }
    }

    pub(super) fn program(&mut self, kernels: &[Kernel]) -> Parsed<Program> {
        let name = self.json()?;
        let collectives = if self.eat("collectives") { Some(self.number()?) } else { None };
        let places = if self.eat("places") { Some(self.number()?) } else { None };
        let runs = if self.eat("times") {
            Runs::Times(self.number()?)
        } else if self.eat("on demand") {
            Runs::OnDemand
        } else if self.eat("prepare") {
            Runs::Prepare
        } else {
            Runs::Asked
        };
        let residency = if self.eat("residency") { Some(ResidencyId(self.number()?)) } else { None };
        let (mut feeds, mut emits) = (vec![], vec![]);
        loop {
            if self.eat("feed") {
                feeds.push(self.json()?);
            } else if self.eat("emit") {
                emits.push(self.json()?);
            } else {
                break;
            }
        }
        let mut ranks = vec![];
        while self.eat("rank") {
            ranks.push(self.rank(kernels)?);
        }
        let places = places.unwrap_or_else(|| ranks.iter().map(|r| r.places.sites().len()).min().unwrap_or(0));
        let collectives = collectives.unwrap_or_else(|| ranks.iter().map(|r| r.collectives).min().unwrap_or(0));
        Ok(Program { name, runs, residency, feeds, emits, collectives, places, ranks })
    }
}
