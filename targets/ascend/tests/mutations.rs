//! The checker passes what the lowering writes, and finds each way in which such a file can be wrong.

use ir::{Builder, Function, ops};
use target_ascend::check;
use target_ascend::dtype::DataType;
use target_ascend::lower::segment;
use target_ascend::proto::{Attribute, ModelDef, OpDef};
use types::{DType, Dim, Name, TensorType};

fn ty(dtype: DType, dims: &[(&str, usize)]) -> TensorType {
    TensorType::new(dtype, dims.iter().map(|(name, size)| Dim::new(*name, *size)))
}

/// A projection, also kept wide, attention, norms, a rotation, two tensors joined, and an update.
fn kernel() -> Function {
    let mut b = Builder::new("k");
    let x = b.param(ty(DType::BF16, &[("B", 2), ("L", 6), ("DIM", 8)]));
    let w = b.param(ty(DType::BF16, &[("OUT", 16), ("DIM", 8)]));
    let y = b.op(ops::Matmul { spec: "abc,oc->abo".into(), dims: names(&["B", "L", "OUT"]), dtype: None }, &[x, w]);
    let heads = ty(DType::BF16, &[("B", 2), ("L", 6), ("HEADS", 2), ("HEAD", 8)]);
    let q = b.reshape(y, &heads);
    let keys = ty(DType::BF16, &[("B", 2), ("T", 6), ("HEADS", 2), ("HEAD", 8)]);
    let k = b.reshape(y, &keys);
    let attention = ops::Attention {
        q_len: "L".into(),
        kv_len: "T".into(),
        heads: "HEADS".into(),
        kv_heads: "HEADS".into(),
        head: "HEAD".into(),
        causal: true,
        scale: 0.5,
        visibility: ops::Visibility::default(),
        bias: None,
    };
    let all = b.op(attention, &[q, k, k]);
    let out = b.results(all)[0];
    let wide = b.cast(out, DType::F32);
    let norm = b.op(ops::RmsNorm { dim: "HEAD".into(), eps: 1e-6 }, &[wide]);
    let less = b.sub(norm, wide);
    let product = |dtype| ops::Matmul { spec: "abc,oc->abo".into(), dims: names(&["B", "L", "OUT"]), dtype };
    let kept = b.op(product(Some(DType::F32)), &[x, w]);
    let layer = b.op(ops::LayerNorm { dim: "OUT".into(), eps: 1e-6 }, &[kept]);
    let [cos, sin] = [0; 2].map(|_| b.param(ty(DType::F32, &[("L", 6), ("PAIRS", 4)])));
    let turned = b.op(ops::Rope { dim: "HEAD".into(), form: ops::RopeForm::Half }, &[wide, cos, sin]);
    let joined = b.op(ops::Concat { dim: "L".into() }, &[turned, less]);
    let [p, m, v, g] = [0; 4].map(|_| b.param(ty(DType::F32, &[("OUT", 16)])));
    let [lr, c1, c2] = [0; 3].map(|_| b.param(TensorType::scalar(DType::F32)));
    let adamw = ops::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let update = b.op(adamw, &[p, m, v, g, lr, c1, c2]);
    let update = b.results(update);
    let mut function = b.finish().expect("a kernel");
    function.results = [&[layer, joined], &update[..]].concat();
    function
}

fn names(all: &[&str]) -> Vec<Name> {
    all.iter().map(|n| Name::from(*n)).collect()
}

fn model() -> ModelDef {
    segment("k", &kernel()).expect("a lowering").model
}

fn node<'a>(model: &'a mut ModelDef, kind: &str) -> &'a mut OpDef {
    model.graph[0].op.iter_mut().find(|op| op.r#type == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// What the checker says of a model that `change` spoilt.
fn check(kind: &str, change: impl Fn(&mut OpDef), expect: &str) {
    let mut model = model();
    change(node(&mut model, kind));
    let findings = check::model(&model).expect_err("a mistake");
    let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(texts.iter().any(|t| t.contains(expect)), "{expect:?} is not among {texts:#?}");
}

#[test]
fn what_is_written_passes() {
    check::model(&model()).expect("no findings");
}

#[test]
fn attributes() {
    check("FlashAttentionScore", |op| drop(op.attr.remove("head_num")), "lacks its attribute `head_num`");
    check("FlashAttentionScore", |op| drop(op.attr.remove("input_layout")), "lacks its attribute `input_layout`");
    check("Cast", |op| drop(op.attr.remove("dst_type")), "lacks its attribute `dst_type`");
    check("Cast", |op| drop(op.attr.insert("dst_type".into(), Attribute::Bool(true).into())), "is of another kind");
    check(
        "MatMulV3",
        |op| drop(op.attr.insert("adj_x1".into(), Attribute::Bool(true).into())),
        "has no attribute `adj_x1`",
    );
    check("Const", |op| drop(op.attr.remove("value")), "a constant without a value");
    check(
        "FlashAttentionScore",
        |op| drop(op.attr.insert("head_num".into(), Attribute::Int(3).into())),
        "is not the number of heads",
    );
    check(
        "FlashAttentionScore",
        |op| drop(op.attr.insert("sparse_mode".into(), Attribute::Int(0).into())),
        "the mask is",
    );
}

#[test]
fn inputs_in_order() {
    check("MatMulV3", |op| op.input.swap(0, 1), "is said to be");
    let both = |op: &mut OpDef, a: usize, b: usize| {
        op.input.swap(a, b);
        op.input_desc.swap(a, b);
    };
    check("Sub", |op| both(op, 0, 1), "`x2` stands where `x1` should");
    check("ApplyAdamW", |op| both(op, 1, 2), "`v` stands where `m` should");
    check("FlashAttentionScore", |op| both(op, 3, 6), "`atten_mask` stands where `real_shift` should");
    check("RmsNorm", |op| op.input.truncate(1), "1 inputs have 2 descriptors");
    check(
        "Sub",
        |op| {
            op.input.pop();
            op.input_desc.pop();
        },
        "does not take 1 inputs",
    );
    check("FlashAttentionScore", |op| op.input_desc[3].attr.clear(), "neither fed nor marked as not fed");
    check(
        "Sub",
        |op| {
            op.input[1].clear();
            op.input_desc[1].attr.insert("_is_unfed_optional".into(), Attribute::Int(1).into());
        },
        "its input `x2` is not fed",
    );
}

#[test]
fn edges() {
    check("Sub", |op| op.input[0] = "nowhere:0".into(), "comes from `nowhere:0`, which is not there");
    check("Sub", |op| op.input[0] = op.input[0].replace(":0", ":7"), "which is not there");
    check("Sub", |op| op.input[0] = op.name.clone() + ":0", "which is not there");
    check("NetOutput", |op| op.input[0] = "".into(), "neither fed nor marked");
}

#[test]
fn types() {
    let f32s = |op: &mut OpDef| {
        for desc in op.input_desc.iter_mut().chain(&mut op.output_desc) {
            if desc.dtype == DataType::Bf16 as i32 {
                desc.dtype = DataType::Float as i32;
            }
        }
    };
    check("FlashAttentionScore", f32s, "is never DT_FLOAT");
    check("Data", f32s, "is said to be");
    check("Sub", |op| op.output_desc[0].dtype = DataType::Bool as i32, "is never DT_BOOL");
    check("Greater", |op| op.output_desc[0].dtype = DataType::Float as i32, "is never DT_FLOAT");
    check("Sub", |op| op.output_desc[0].dtype = 99, "element type 99 is not known");
    check("MatMulV3", |op| op.output_desc[0].shape.as_mut().expect("a shape").dim[0] = 5, "not DT_BF16[5, 16]");
    check("Const", |op| op.output_desc[0].shape.as_mut().expect("a shape").dim.push(2), "is no DT_INT64");
}

/// Each type is one that its port may have, and no kernel has them all.
#[test]
fn types_that_do_not_go_together() {
    let given = |to: DataType| move |op: &mut OpDef| op.output_desc[0].dtype = to as i32;
    let sixteen = "no kernel of a 910B takes x1 DT_BF16, x2 DT_BF16 and gives y";
    check("MatMulV3", given(DataType::Float), &format!("{sixteen} DT_FLOAT"));
    check("BatchMatMulV3", given(DataType::Float16), "a product of DT_BF16 is not DT_FLOAT16");
    let mut model = model();
    for op in &mut model.graph[0].op {
        // The product that is f32 under the name of the operator that cannot.
        if op.r#type == "BatchMatMulV3" {
            op.r#type = "MatMulV3".into();
        }
    }
    assert!(check::model(&model).is_err());
    check("LayerNormV4", |op| op.output_desc[1].dtype = DataType::Bf16 as i32, "its output `mean` is");
}

/// What mmc once wrote, and no release of CANN for a 910B takes.
#[test]
fn inputs_that_no_kernel_has() {
    check(
        "RotaryPositionEmbedding",
        |op| {
            let mut desc = op.input_desc[2].clone();
            desc.name = "rotate".into();
            desc.attr.insert("_is_unfed_optional".into(), Attribute::Int(1).into());
            op.input.push(String::new());
            op.input_desc.push(desc);
        },
        "its last input `rotate` is not fed, and must be left out",
    );
    let wide = |kind: &str, input: usize, dtype: DataType, shape: &[i64], expect: &str| {
        let mut model = model();
        let of = node(&mut model, kind);
        let name = of.input[input].rsplit_once(':').expect("an edge").0.to_owned();
        let ops = &mut model.graph[0].op;
        let mut constant = ops.iter().find(|op| op.name == name).expect("a constant").clone();
        let value = match constant.attr.get_mut("value").and_then(|a| a.value.as_mut()) {
            Some(Attribute::Tensor(tensor)) => tensor,
            other => panic!("{other:?}"),
        };
        let first = if dtype == DataType::Int64 { value.data[..4].to_vec() } else { vec![0; 4] };
        let data = if value.data.len() == 4 { [first, vec![0; 4]].concat() } else { value.data.clone() };
        constant.output_desc[0].dtype = dtype as i32;
        constant.output_desc[0].shape.as_mut().expect("a shape").dim = shape.to_vec();
        value.data = data;
        value.desc = constant.output_desc.first().cloned();
        constant.name = "other".into();
        let desc = constant.output_desc[0].clone();
        ops.insert(0, constant);
        let of = ops.iter_mut().find(|op| op.r#type == kind).expect("a node");
        of.input[input] = "other:0".into();
        of.input_desc[input].dtype = desc.dtype;
        of.input_desc[input].shape = desc.shape;
        let findings = check::model(&model).expect_err("a mistake");
        assert!(findings.iter().any(|f| f.message.contains(expect)), "{expect:?} is not among {findings:#?}");
    };
    let long = "no kernel of a 910B takes x DT_FLOAT, normalized_shape DT_INT64 and gives";
    wide("LayerNormV4", 1, DataType::Int64, &[1], long);
    wide("ConcatV2", 2, DataType::Int64, &[1], "`concat_dim` is one number without dims, not of [1]");
    check(
        "FlashAttentionScore",
        |op| op.output_desc[2].shape.as_mut().expect("a shape").dim = vec![0],
        "its output `softmax_out` is DT_BF16[0, 0, 0, 0], not DT_BF16[0]",
    );
}

#[test]
fn nodes() {
    check("Sub", |op| op.r#type = "Subtract".into(), "the table has no operator `Subtract`");
    check("Sub", |op| op.name = "arg0".into(), "another node has that name");
    check("NetOutput", |op| op.r#type = "Identity".into(), "one NetOutput must end the graph");
    check("Data", |op| drop(op.attr.insert("index".into(), Attribute::Int(4).into())), "it is not numbered 0");
}

/// An operator that CANN takes in half precision only is taken apart in f32, and the report says why.
#[test]
fn attention_in_f32_is_taken_apart() {
    let mut b = Builder::new("k");
    let [q, k] = ["L", "T"].map(|len| b.param(ty(DType::F32, &[("B", 1), (len, 4), ("HEADS", 2), ("HEAD", 8)])));
    let attention = ops::Attention {
        q_len: "L".into(),
        kv_len: "T".into(),
        heads: "HEADS".into(),
        kv_heads: "HEADS".into(),
        head: "HEAD".into(),
        causal: false,
        scale: 0.5,
        visibility: ops::Visibility::default(),
        bias: None,
    };
    let all = b.op(attention, &[q, k, k]);
    let results = b.results(all);
    let mut function = b.finish().expect("a kernel");
    function.results = results.to_vec();
    let segment = segment("k", &function).expect("a lowering");
    check::model(&segment.model).expect("no findings");
    let row = segment.rows.iter().find(|r| r.op == "attention").expect("a row");
    assert_eq!(row.reason.as_deref(), Some("FlashAttentionScore takes f16 and bf16 only"));
    assert!(row.cann.iter().any(|name| name == "BatchMatMulV3"), "{:?}", row.cann);
}

/// A kernel of a 910B has places for so many heads of an angle; more are rotated by simpler operators.
#[test]
fn rotations_past_the_limits_are_taken_apart() {
    let rotated = |batch: usize, heads: usize, head: usize, form: ops::RopeForm| {
        let mut b = Builder::new("k");
        let x = b.param(ty(DType::F32, &[("B", batch), ("L", 3), ("HEADS", heads), ("HEAD", head)]));
        let [cos, sin] = [0; 2].map(|_| b.param(ty(DType::F32, &[("L", 3), ("PAIRS", head / 2)])));
        let y = b.op(ops::Rope { dim: "HEAD".into(), form }, &[x, cos, sin]);
        let mut function = b.finish().expect("a kernel");
        function.results = vec![y];
        let segment = segment("k", &function).expect("a lowering");
        check::model(&segment.model).expect("no findings");
        segment.model.graph[0].op.iter().any(|op| op.r#type == "RotaryPositionEmbedding")
    };
    use ops::RopeForm::{Half, Interleaved};
    assert!(rotated(24, 40, 128, Interleaved));
    assert!(!rotated(25, 40, 128, Interleaved));
    assert!(rotated(25, 40, 128, Half));
    assert!(!rotated(1000, 1, 128, Half));
    assert!(rotated(1, 1, 894, Half));
    assert!(!rotated(1, 1, 896, Half));
}
