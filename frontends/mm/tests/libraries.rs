//! Models that use one file twice are Rust: what `frontends/eval` runs of them, rustc type-checks.
#![allow(dead_code, clippy::new_without_default)]

#[path = "../../../tests/meshes/layers"]
mod layers {
    #[path = "tower.mm"]
    pub mod tower;
}
#[path = "../../../tests/meshes/towers.mm"]
mod towers;

#[test]
fn a_model_of_two_towers_type_checks() {
    let train: fn(&towers::Towers, mm::Tensor, mm::Tensor) -> mm::Tensor = towers::train;
    let plan: fn(&mut mm::Plan) = towers::plan;
    train(&towers::Towers::new(), mm::Tensor, mm::Tensor);
    plan(&mut mm::Plan);
}
