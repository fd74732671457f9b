//! Models of the tests are Rust: what `frontends/eval` runs of them, rustc type-checks.
#![allow(dead_code, clippy::new_without_default)]

#[path = "../../../tests/meshes/layers"]
mod layers {
    #[path = "tower.mm"]
    pub mod tower;
}
#[path = "../../../tests/meshes/pictured_towers.mm"]
mod pictured_towers;
#[path = "../../../tests/ragged/pictures.mm"]
mod pictures;
#[path = "../../../tests/meshes/towers.mm"]
mod towers;

#[test]
fn a_model_of_two_towers_type_checks() {
    let train: fn(&towers::Towers, mm::Tensor, mm::Tensor) -> mm::Tensor = towers::train;
    let plan: fn(&mut mm::Plan) = towers::plan;
    train(&towers::Towers::new(), mm::Tensor, mm::Tensor);
    plan(&mut mm::Plan);
}

#[test]
fn models_with_ragged_axes_type_check() {
    use mm::Tensor;
    let train: fn(&pictured_towers::Net, Tensor, Tensor, Tensor) -> Tensor = pictured_towers::train;
    train(&pictured_towers::Net::new(), Tensor, Tensor, Tensor);
    let train: fn(&pictures::Net, Tensor, Tensor, Tensor, Tensor) -> Tensor = pictures::train;
    train(&pictures::Net::new(), Tensor, Tensor, Tensor, Tensor);
}
