//! Models of the tests are Rust: what `frontends/eval` runs of them, rustc type-checks.
// Constants in `.mm` files are settings.
#![allow(dead_code, clippy::new_without_default, clippy::approx_constant, clippy::modulo_one)]

#[path = "../../../tests/meshes/layers"]
mod layers {
    #[path = "../../../models/layers/gated_mlp.mm"]
    pub mod gated_mlp;
    #[path = "../../../models/layers/moe.mm"]
    pub mod moe;
    #[path = "../../../models/layers/next_token.mm"]
    pub mod next_token;
    #[path = "../../../models/layers/rope.mm"]
    pub mod rope;
    #[path = "../../../models/layers/rotary.mm"]
    pub mod rotary;
    #[path = "../../../models/layers/text_decoder.mm"]
    pub mod text_decoder;
    #[path = "tower.mm"]
    pub mod tower;
}
#[path = "../../../tests/meshes/pictured_towers.mm"]
mod pictured_towers;
#[path = "../../../tests/ragged/pictures.mm"]
mod pictures;
#[path = "../../../tests/cli/models/texts.mm"]
mod texts;
#[path = "../../../tests/cli/models/thinker.mm"]
mod thinker;
#[path = "../../../tests/meshes/towers.mm"]
mod towers;
#[path = "../../../tests/cli/models/vl_text.mm"]
mod vl_text;

#[test]
fn a_model_of_two_towers_type_checks() {
    let train: fn(&towers::Towers, mm::Tensor, mm::Tensor) -> mm::Tensor = towers::train;
    let plan: fn(&mut mm::Plan) = towers::plan;
    train(&towers::Towers::new(), mm::Tensor, mm::Tensor);
    plan(&mut mm::Plan);
}

#[test]
fn a_model_whose_config_chooses_with_texts_type_checks() {
    let forward: fn(&texts::Net, mm::Tensor) -> mm::Tensor = texts::forward;
    forward(&texts::Net::new(), mm::Tensor);
}

#[test]
fn models_that_are_parts_of_classes_type_check() {
    use mm::Tensor;
    let train: fn(&thinker::Thinker, Tensor, Tensor) -> Tensor = thinker::train;
    train(&thinker::Thinker::new(), Tensor, Tensor);
    let train: fn(&layers::text_decoder::CausalLm, Tensor, Tensor) -> Tensor = vl_text::train;
    train(&layers::text_decoder::CausalLm::new(), Tensor, Tensor);
}

#[test]
fn models_with_ragged_axes_type_check() {
    use mm::Tensor;
    let train: fn(&pictured_towers::Net, Tensor, Tensor, Tensor) -> Tensor = pictured_towers::train;
    train(&pictured_towers::Net::new(), Tensor, Tensor, Tensor);
    let train: fn(&pictures::Net, Tensor, Tensor, Tensor, Tensor) -> Tensor = pictures::train;
    train(&pictures::Net::new(), Tensor, Tensor, Tensor, Tensor);
}
