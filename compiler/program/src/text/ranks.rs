//! Reads the program of one rank, but for its operations.

use std::sync::Arc;

use cost::Unit;
use diag::Parsed;
use plan::{Buffer, BufferId, BufferKind, Kernel, Life, ResidencyId, Space, UnitKind};
use types::{DType, Name, TensorType};

use super::cursor::Parser;
use crate::{Frame, Lane, PlaceTable, RankProgram, Site, Turn, Update};

impl Parser<'_> {
    pub(super) fn rank(&mut self, kernels: &[Kernel]) -> Parsed<RankProgram> {
        let mut r = RankProgram { kernels: kernels.into(), ..RankProgram::default() };
        r.pipeline.rank = self.number()?;
        if self.eat("collectives") {
            r.collectives = self.number()?;
        }
        let mut places = PlaceTable::default();
        loop {
            if self.eat("place") {
                self.place(&mut places)?;
            } else if self.eat("buffer") {
                self.buffer(&mut r)?;
            } else if self.eat("block") {
                r.blocks.push(self.ids()?);
            } else if self.eat("once") {
                r.once = self.ids()?.into_iter().collect();
            } else if self.eat("update") {
                let value = self.slice(&r)?;
                self.expect("->")?;
                self.prefix('b')?;
                r.updates.push(Update { value, home: BufferId(self.number()?) });
            } else if self.eat("units") {
                while let Some(kind) = self.kind() {
                    let (microbatch, stage) = self.unit()?;
                    r.pipeline.units.push(Unit { stage, microbatch, kind });
                }
            } else if self.eat("settles") {
                self.prefix('c')?;
                let send = self.number()?;
                r.pipeline.settles.insert(send, self.number()?);
            } else if self.eat("lanes") {
                while let Some(lane) = self.lane()? {
                    r.lanes.push(lane);
                }
            } else if self.eat("events") {
                r.events = self.number()?;
            } else if self.eat("unit") {
                let start = self.at;
                let Some(kind) = self.kind() else { return self.fail(start, "expected F, B or W") };
                let (microbatch, stage) = self.unit()?;
                let (first, end) = self.span()?;
                let (stage, microbatch) = (stage as u32, microbatch as u32);
                r.units.push(plan::Unit { stage, microbatch, kind, first, end });
            } else if self.eat("kept") {
                r.kept.push(self.json()?);
            } else if self.eat("arena") {
                r.arena_bytes = self.number()?;
                self.expect("host")?;
                r.host_bytes = self.number()?;
            } else if self.eat("turn") {
                r.turns.push(self.turn(r.instructions.len())?);
            } else if let Some(instruction) = self.instruction(&r)? {
                r.instructions.push(instruction);
            } else {
                r.places = places.into();
                return Ok(r);
            }
        }
    }

    pub(super) fn place(&mut self, places: &mut PlaceTable) -> Parsed<()> {
        let start = self.at;
        self.prefix('p')?;
        let id: usize = self.number()?;
        let mut site = Site { what: self.json()?, frames: vec![] };
        loop {
            self.skip();
            if !self.rest().starts_with('"') {
                break;
            }
            let file = self.json()?;
            site.frames.push(Frame { file, line: self.number()?, column: self.number()? });
        }
        if places.add(site).index() != id {
            return self.fail(start, "places are numbered in their order, and each stands there once");
        }
        Ok(())
    }

    pub(super) fn ids(&mut self) -> Parsed<Vec<BufferId>> {
        let mut ids = vec![];
        loop {
            self.skip();
            let mut next = self.rest().chars();
            if next.next() != Some('b') || !next.next().is_some_and(|c| c.is_ascii_digit()) {
                return Ok(ids);
            }
            self.prefix('b')?;
            ids.push(BufferId(self.number()?));
        }
    }

    pub(super) fn buffer(&mut self, r: &mut RankProgram) -> Parsed<()> {
        let start = self.at;
        self.skip();
        self.at += usize::from(self.rest().starts_with('b'));
        if self.number::<usize>()? != r.buffers.len() {
            return self.fail(start, format!("buffers are numbered in their order: this one is b{}", r.buffers.len()));
        }
        let kind_at = self.at;
        let word = self.word()?;
        let Some(kind) = BufferKind::ALL.into_iter().find(|k| k.name() == word) else {
            return self.fail(kind_at, format!("there is no kind of buffers `{word}`"));
        };
        let name: Name = self.json()?;
        self.skip();
        let ty_at = self.at;
        let ty: Option<TensorType> = match self.rest().split_once(']') {
            Some((head, _)) if head.split_once('[').is_some_and(|(dtype, _)| dtype.parse::<DType>().is_ok()) => {
                self.at += head.len() + 1;
                Some(self.text[ty_at..self.at].parse::<TensorType>().or_else(|e| self.fail(ty_at, format!("{e}")))?)
            }
            _ => None,
        };
        self.skip();
        let bytes = match self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            true => {
                let bytes = self.number()?;
                self.expect("bytes")?;
                Some(bytes)
            }
            false => None,
        };
        let Some(bytes) = bytes.or(ty.as_ref().map(|ty| ty.bytes() as u64)) else {
            return self.fail(start, "a buffer has a type or a number of bytes");
        };
        let held = if self.eat("persistent") {
            Some(true)
        } else if self.eat("elsewhere") {
            Some(false)
        } else {
            None
        };
        if let Some(held) = held {
            if r.persistent != r.buffers.len() {
                return self.fail(start, "persistent buffers come first");
            }
            r.persistent += 1;
            r.held.push(held);
            let owner = if self.eat("of") {
                self.prefix('b')?;
                Some(BufferId(self.number()?))
            } else {
                None
            };
            r.owner.push(owner);
        }
        let space = if self.eat("host") { Space::Host } else { Space::Device };
        let (mut life, mut offset) = (Life::Span { first: 0, last: 0 }, 0);
        if held.is_some() {
            life = if self.eat("residency") { Life::Resident(ResidencyId(self.number()?)) } else { Life::Persistent };
        } else if self.eat("live") {
            let (first, last) = self.span()?;
            self.expect("at")?;
            (life, offset) = (Life::Span { first, last }, self.number()?);
        }
        r.buffers.push(Buffer { name, kind, space, offset, bytes, ty: ty.map(Arc::new), life });
        Ok(())
    }

    /// `#3..#9`
    pub(super) fn span(&mut self) -> Parsed<(u32, u32)> {
        self.expect("#")?;
        let first = self.number()?;
        self.expect("..")?;
        self.expect("#")?;
        Ok((first, self.number()?))
    }

    pub(super) fn kind(&mut self) -> Option<UnitKind> {
        self.skip();
        let mut next = self.rest().chars();
        let kinds = [UnitKind::Forward, UnitKind::Backward, UnitKind::Weights];
        let letter = next.next()?;
        let kind = kinds.into_iter().find(|k| k.letter() == letter)?;
        next.next().filter(char::is_ascii_digit)?;
        self.at += 1;
        Some(kind)
    }

    /// The micro-batch and the stage.
    pub(super) fn unit(&mut self) -> Parsed<(usize, usize)> {
        let microbatch = self.number()?;
        self.expect(".")?;
        Ok((microbatch, self.number()?))
    }

    pub(super) fn lane(&mut self) -> Parsed<Option<Lane>> {
        if self.eat("compute") {
            return Ok(Some(Lane::Compute));
        } else if self.eat("copy") {
            return Ok(Some(Lane::Copy));
        } else if !self.eat("comm(") {
            return Ok(None);
        }
        let group = self.axes()?;
        let way = if self.eat(")") {
            None
        } else {
            let way = [self.signed()?, self.signed()?];
            self.expect(")")?;
            Some(way)
        };
        Ok(Some(Lane::Comm { group, way }))
    }

    pub(super) fn turn(&mut self, at: usize) -> Parsed<Turn> {
        let is_block = self.eat("block");
        let unit = if self.eat("unit") { Some(if self.eat("end") { u32::MAX } else { self.number()? }) } else { None };
        Ok(Turn { at, is_block, unit })
    }
}
