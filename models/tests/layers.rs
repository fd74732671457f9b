//! Models of tests that are made of libraries of layers: what `mmc` compiles of them, rustc type-checks.
#![allow(dead_code, clippy::new_without_default)]

use models::layers;

#[path = "../../tests/conformance/layers/experts.mm"]
mod experts;
#[path = "../../tests/conformance/layers/ropes.mm"]
mod ropes;

#[test]
fn models_of_layers_type_check() {
    use mm::Tensor;
    let train: fn(&ropes::Net, Tensor, Tensor) -> Tensor = ropes::train;
    train(&ropes::Net::new(), Tensor, Tensor);
    let train: fn(&experts::Net, Tensor, Tensor, Tensor) -> Tensor = experts::train;
    train(&experts::Net::new(), Tensor, Tensor, Tensor);
}
