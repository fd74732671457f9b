//! Reads instructions.

use diag::Parsed;
use plan::{
    Affine, BufferId, Collect, CollectKind, EmitId, EventId, FeedId, KernelId, LaneId, Launch, Op, Phase, PlaceId,
    Reduce, ReduceKind, Slice,
};
use types::{DType, Name};

use super::cursor::Parser;
use crate::{Instruction, Joins, Origin, RankProgram};

impl Parser<'_> {
    /// None where no instruction begins.
    pub(super) fn instruction(&mut self, r: &RankProgram) -> Parsed<Option<Instruction>> {
        let lane = if self.eat("@") { self.number()? } else { 0 };
        let Some(op) = self.op(r)? else { return Ok(None) };
        let (mut origin, mut joins) = (Origin::at(PlaceId(0)), None);
        loop {
            self.skip();
            let mut next = self.rest().chars();
            if next.next() == Some('p') && next.next().is_some_and(|c| c.is_ascii_digit()) {
                self.at += 1;
                origin.place = PlaceId(self.number()?);
            } else if self.rest().starts_with("block ") && self.rest()[6..].starts_with(|c: char| c.is_ascii_digit()) {
                self.at += 6;
                origin.block = Some(self.number()?);
            } else if self.eat("backward") {
                origin.phase = Phase::Backward;
            } else if !self.begins_update() && self.eat("update") {
                origin.phase = Phase::Update;
            } else if self.eat("microbatch") {
                origin.microbatch = Some(self.number()?);
            } else if self.eat("site") {
                origin.site = self.number()?;
            } else if self.eat("joins") {
                let block = self.number()?;
                self.expect("until")?;
                self.expect("#")?;
                joins = Some(Joins { block, until: self.number()? });
            } else {
                return Ok(Some(Instruction { lane: LaneId(lane), op, origin, joins }));
            }
        }
    }

    /// Whether a line `update b3 -> b0` follows.
    fn begins_update(&self) -> bool {
        let mut buffer = self.rest().strip_prefix("update b").unwrap_or_default().chars();
        buffer.next().is_some_and(|c| c.is_ascii_digit())
    }

    pub(super) fn op(&mut self, r: &RankProgram) -> Parsed<Option<Op>> {
        if self.eat("copy(") {
            let from = self.slice(r)?;
            self.expect("->")?;
            let to = self.slice(r)?;
            self.expect(")")?;
            return Ok(Some(Op::Copy { from, to }));
        } else if self.eat("record") {
            return Ok(Some(Op::Record { event: self.event()? }));
        } else if self.eat("wait") {
            return Ok(Some(Op::Wait { event: self.event()? }));
        }
        self.skip();
        let word_end = self.rest().find(|c: char| c.is_ascii_digit()).unwrap_or(0);
        let word = &self.rest()[..word_end];
        if !["k", "c", "feed", "emit"].contains(&word) {
            return Ok(None);
        }
        self.at += word_end;
        let id = self.number()?;
        Ok(Some(match word {
            "feed" => {
                self.expect("->")?;
                Op::Feed { feed: FeedId(id), to: self.slice(r)? }
            }
            "emit" => {
                self.expect("<-")?;
                Op::Emit { emit: EmitId(id), from: self.slice(r)? }
            }
            "k" => {
                self.expect("(")?;
                let mut args = self.slices(r)?;
                self.expect("->")?;
                args.extend(self.slices(r)?);
                let mut scalars = vec![];
                while self.eat(";") {
                    scalars.push(self.affine()?);
                }
                self.expect(")")?;
                Op::Launch(Launch { kernel: KernelId(id), args, scalars })
            }
            _ => Op::Collect(Box::new(self.collective(r, id)?)),
        }))
    }

    pub(super) fn event(&mut self) -> Parsed<EventId> {
        self.skip();
        self.at += usize::from(self.rest().starts_with('e'));
        Ok(EventId(self.number()?))
    }

    pub(super) fn collective(&mut self, r: &RankProgram, id: u32) -> Parsed<Collect> {
        let start = self.at;
        let kind = match self.word()? {
            "all_reduce" => CollectKind::AllReduce(self.reduce()?),
            "reduce_scatter" => CollectKind::ReduceScatter(self.reduce()?),
            "all_gather" => CollectKind::AllGather,
            "all_to_all" => CollectKind::AllToAll,
            "broadcast" => CollectKind::Broadcast { root: self.affine()? },
            "permute" => CollectKind::Permute { shifts: self.json()? },
            "send" => CollectKind::Send { peer: self.affine()? },
            "receive" => CollectKind::Receive { peer: self.affine()? },
            other => return self.fail(start, format!("there is no collective `{other}`")),
        };
        self.expect("over")?;
        let group = self.axes()?;
        self.expect("(")?;
        let from = self.slices(r)?;
        self.expect("->")?;
        let to = self.slices(r)?;
        self.expect(")")?;
        self.skip();
        let why = if self.rest().starts_with('"') { self.json()? } else { "".into() };
        Ok(Collect { id, kind, group, from, to, why })
    }

    pub(super) fn reduce(&mut self) -> Parsed<Reduce> {
        let kind = if self.eat("max") {
            ReduceKind::Max
        } else {
            self.expect("sum")?;
            ReduceKind::Sum
        };
        let start = self.at;
        let dtype = self.word()?.parse::<DType>().or_else(|e: String| self.fail(start, e))?;
        Ok(Reduce { kind, dtype })
    }

    pub(super) fn affine(&mut self) -> Parsed<Affine> {
        self.skip();
        if self.rest().starts_with('{') { self.json() } else { Ok(Affine::constant(self.signed()?)) }
    }

    pub(super) fn slices(&mut self, r: &RankProgram) -> Parsed<Vec<Slice>> {
        let mut slices = vec![];
        loop {
            self.skip();
            if !self.rest().starts_with('b') {
                return Ok(slices);
            }
            slices.push(self.slice(r)?);
        }
    }

    pub(super) fn slice(&mut self, r: &RankProgram) -> Parsed<Slice> {
        self.skip();
        let start = self.at;
        if !self.rest().starts_with('b') {
            return self.fail(start, "expected a buffer");
        }
        self.at += 1;
        let buffer = BufferId(self.number()?);
        let Some(of) = r.buffers.get(buffer.index()) else {
            return self.fail(start, format!("there is no buffer {buffer}"));
        };
        if !self.eat("[") {
            return Ok(Slice::whole(buffer, of.bytes));
        }
        let offset: u64 = self.number()?;
        self.expect("..")?;
        let end: u64 = self.number()?;
        self.expect("]")?;
        match end.checked_sub(offset) {
            Some(bytes) => Ok(Slice { buffer, offset, bytes }),
            None => self.fail(start, "a slice ends before it begins"),
        }
    }

    pub(super) fn axes(&mut self) -> Parsed<Vec<Name>> {
        let mut axes = vec![self.word()?.into()];
        while self.eat(",") {
            axes.push(self.word()?.into());
        }
        Ok(axes)
    }
}
