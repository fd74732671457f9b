//! Each rank has some of the experts, whole.
use mm::prelude::*;

pub fn plan(p: &mut Plan) {
    p.shard(EXPERTS, "tp").shard(B, "dp").shard(S, "cp");
    p.fsdp(["fsdp", "cp"]);
}
