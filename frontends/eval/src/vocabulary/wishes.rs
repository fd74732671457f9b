//! The plan's wishes, written down as data: which dims to shard over which mesh axes, where to cut a pipeline.

use diag::Diagnostic;

use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::stop::Eval;
use crate::value::Value;
use crate::wishes::Wish;

pub const METHODS: &[&str] = &["shard", "pipeline", "fsdp", "recompute", "offload"];

pub fn method<'a>(ev: &mut Evaluator<'a>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    let axis = |i| Ok::<_, crate::stop::Stop<'a>>(args.text(i)?.to_string());
    let wish = match args.name.as_str() {
        "shard" => {
            args.expect(2, "p.shard(DIM, \"tp\")")?;
            Wish::Shard { dim: args.dim(0)?.name, axis: axis(1)? }
        }
        "pipeline" => {
            args.expect(3, "p.pipeline(LAYERS, \"pp\", OneFOneB)")?;
            let (Value::Schedule(schedule), _) = args.get(2)? else {
                return Err(Diagnostic::error("expected a schedule")
                    .at(args.span(2), "")
                    .help("the schedules are `GPipe`, `OneFOneB`, `Interleaved` and `ZbH1`")
                    .into());
            };
            Wish::Pipeline { dim: args.dim(0)?.name, axis: axis(1)?, schedule: schedule.into() }
        }
        "fsdp" => {
            args.expect(1, "p.fsdp(\"fsdp\")")?;
            Wish::Fsdp { axis: axis(0)? }
        }
        "recompute" => {
            args.expect(1, "p.recompute(\"auto\")")?;
            Wish::Recompute(axis(0)?)
        }
        _ => {
            args.expect(1, "p.offload(\"none\")")?;
            Wish::Offload(axis(0)?)
        }
    };
    ev.wishes.0.push((wish, args.site.span));
    Ok(Value::Plan)
}
