//! Cuts the text alone: the video's tokens attend to it in parts, which are merged.
use mm::prelude::*;

pub fn plan(p: &mut Plan) {
    p.shard(S, "cp");
}
