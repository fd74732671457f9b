//! Parts of the language on small files: each evaluates to a graph that says what it did.

use crate::{evaluate, options};

/// A model around one function body; what `train` returns is the loss.
fn around(body: &str) -> String {
    format!(
        "use mm::prelude::*;
dims! {{ B, L = 6, DIM = 8, OTHER = 4, ONE = 1, TWO = 2, T: free }}
#[derive(Module)]
pub struct Net {{ up: Linear, down: Linear }}
impl Net {{
    pub fn new() -> Self {{ Self {{ up: linear(DIM, OTHER), down: linear(OTHER, DIM) }} }}
    fn forward(&self, x: Tensor![B, T, DIM]) -> Tensor![B, T, DIM] {{ self.down.forward(self.up.forward(x).silu()) }}
}}
pub fn train(net: &Net, x: Tensor![B, L, DIM]) -> Tensor![; f32] {{
{body}
}}
"
    )
}

fn check(body: &str, expected: &str) {
    let evaluated = evaluate("net.mm", &around(body), &options("train", None, &[])).unwrap_or_else(|e| panic!("{e}"));
    ir::verify(&evaluated.module).expect("a sound module");
    let main = evaluated.module.function_named("train").expect("the task");
    let text = evaluated.module.functions[main].to_string();
    let ops: Vec<&str> = text
        .lines()
        .filter_map(|l| l.split_once(" = "))
        .map(|(_, rest)| rest.split(['(', ' ']).next().unwrap_or(""))
        .collect();
    assert_eq!(ops.join(" "), expected, "{text}");
}

#[test]
fn compile_time_values_leave_no_trace() {
    check(
        "let mut y = x.cast(f32);
    for i in 0..2 { if i == 1 { y = y + y; } }
    let (a, [b, ..]) = (3, [2.5, 1.0]);
    let scale = match a { 1 | 2 => 1.0, 3 if b > 2.0 => b, _ => 0.0 };
    let twice = |v: Tensor| v * (2.0 * scale);
    twice(y).sum()",
        "cast cast add constant mul reduce_sum",
    );
}

/// Numbers are counted where the counts are read, and only there.
#[test]
fn experts_are_one_operator_and_its_counts() {
    let experts = "let w = constant(0.0, work).expand([TWO, DIM, OTHER]);
    let ids = x.cast(f32).sum_over([DIM]).cast(i64);";
    check(
        &format!("{experts}\n    x.grouped_matmul(TWO, ids, w).0.cast(f32).sum()"),
        "cast constant broadcast cast reduce_sum cast grouped_matmul cast reduce_sum",
    );
    check(
        &format!("{experts}\n    x.grouped_matmul(TWO, ids, w).1.cast(f32).square().sum()"),
        "cast cast reduce_sum cast iota compare cast reduce_sum cast mul reduce_sum",
    );
}

#[test]
fn what_is_said_behind_an_attention_is_one_operator() {
    check(
        "let q = x.rename(DIM, OTHER).slice(OTHER, 0..4).split(OTHER, [ONE, OTHER]);
    let n = iota(L, i64);
    let v = q.pad(OTHER, 0, 4, 0.0).rename(OTHER, DIM);
    let near = attend_causal(q, q, q).segments(n, n).window(2, 0).scale(0.5);
    let wide = attend(q, q, v).segments(n, n);
    near.cast(f32).sum() + wide.cast(f32).sum()",
        "cast reshape slice reshape iota pad reshape attention get pad pad reshape attention get reshape cast reduce_sum \
         cast reduce_sum add",
    );
}

#[test]
fn equal_calls_share_one_function() {
    check(
        "let a = net.forward(x);
    let b = net.forward(a);
    b.cast(f32).mean()",
        "cast call call cast reduce_sum constant div",
    );
}

#[test]
fn parameters_meet_numbers_and_tensors() {
    check(
        "let w = net.up.weight;
    let y = x.in_f32(|x| x.normalize(DIM, 1e-5) * 2.0 + 1.0).contract(w, [DIM]);
    y.cast(f32).square().mean_over([B, L, OTHER])",
        "cast cast layer_norm constant mul constant add cast cast matmul cast mul reduce_sum constant div",
    );
}

#[test]
fn tables_are_computed_here_and_whole_numbers_there() {
    check(
        "let angles = iota(L, f32) * (1.0 / powers(100.0, iota(DIM, f32) / 8.0));
    let late = iota(L, i64).ge(3);
    select(late.expand([B, L]), x.cast(f32) * angles.cos(), 0.0).sum()",
        "cast iota constant compare broadcast cast table mul constant select reduce_sum",
    );
}

#[test]
fn axes_are_cut_and_joined_by_name() {
    check(
        "let halves = x.split(DIM, [TWO, OTHER]).unstack(TWO);
    let [a, b] = halves.map(|h: Tensor| h.slice(L, 1..3).pad(L, 1, 0, 0.0));
    let both = concat(OTHER, [a, b]).transpose([OTHER, B, L]).max_over([OTHER]);
    both.cast(f32).sum()",
        "cast reshape slice reshape slice reshape slice pad slice pad concat transpose reduce_max cast reduce_sum",
    );
}

#[test]
fn a_fold_over_pieces_is_one_call() {
    check(
        "let rows = x.transpose([L, B, DIM]);
    let pieces = rows.chunks(L, TWO).recompute();
    let (sum, _) = pieces.fold((constant(0.0, f32), constant(0.0, f32)), |(sum, n), piece| {
        (sum + piece.cast(f32).sum(), n + 1.0)
    });
    sum",
        "cast transpose chunk constant constant call get",
    );
}

#[test]
fn siblings_are_read_by_name() {
    let part = "use mm::prelude::*;\ndims! { B, K = 3 }\npub fn scaled(x: Tensor) -> Tensor { x * K.f64() }\n";
    let main = "use mm::prelude::*;
use super::part_1_5::scaled;
dims! { B, L = 6, DIM = 8 }
#[derive(Module)]
pub struct Net { w: Param }
impl Net { pub fn new() -> Self { Self { w: Param::ones([DIM]) } } }
pub fn train(net: &Net, x: Tensor![B, L, DIM; f32]) -> Tensor![; f32] { scaled(x * net.w.keep(f32)).sum() }
";
    let mut sources = diag::Sources::default();
    let file = sources.add("net.mm", main);
    let mut asked = vec![];
    let evaluated = eval::evaluate(&mut sources, file, &options("train", None, &[]), &mut |name, _| {
        asked.push(name.to_string());
        (name == "part_1.5.mm").then(|| eval::Sibling {
            path: name.into(),
            text: part.into(),
            origin: eval::Origin::Folder,
        })
    });
    let text = evaluated.unwrap_or_else(|e| panic!("{}", diag::render(&e, &sources, false))).module.to_string();
    assert!(text.contains("constant() 3.0"), "{text}");
    assert_eq!(asked, ["part_1_5.mm", "part_1.5.mm"]);
}

#[test]
fn parameters_that_nothing_reads_are_pointed_out() {
    let text = around("net.up.forward(x).cast(f32).mean()");
    let evaluated = evaluate("net.mm", &text, &options("train", None, &[])).unwrap_or_else(|e| panic!("{e}"));
    let message = "no program of this task reads `down.weight` and `down.bias`";
    assert_eq!(evaluated.warnings.to_string(), message);
}

#[test]
fn the_plan_is_data() {
    let text = around("x.cast(f32).mean()")
        + "pub fn plan(p: &mut Plan) { p.shard(DIM, \"tp\").shard(B, \"dp\"); p.fsdp([\"fsdp\", \"cp\"]); }";
    let evaluated = evaluate("net.mm", &text, &options("train", None, &[])).unwrap_or_else(|e| panic!("{e}"));
    let directives: Vec<String> = evaluated.directives.0.iter().map(|(w, _)| format!("{w:?}")).collect();
    assert_eq!(
        directives,
        [
            "Shard { dim: \"DIM\", axis: \"tp\" }",
            "Shard { dim: \"B\", axis: \"dp\" }",
            "Fsdp { axes: [\"fsdp\", \"cp\"] }"
        ]
    );
}

#[test]
fn a_plan_of_its_own_file_speaks_the_models_names() {
    let plan = "use mm::prelude::*;
use super::net::*;
pub fn plan(p: &mut Plan) { p.shard(OTHER, \"tp\").pipeline(L, \"pp\", ZbH1); }
";
    let mut sources = diag::Sources::default();
    let model = sources.add("net.mm", around("x.cast(f32).mean()"));
    let plan = sources.add("plan.mm", plan);
    let asked = options("train", None, &[]);
    let directives = eval::directives(&mut sources, model, plan, &asked, &mut |_, _| None);
    let directives = directives.unwrap_or_else(|e| panic!("{}", diag::render(&e, &sources, false)));
    let directives: Vec<String> = directives.0.iter().map(|(w, _)| format!("{w:?}")).collect();
    assert_eq!(
        directives,
        ["Shard { dim: \"OTHER\", axis: \"tp\" }", "Pipeline { dim: \"L\", axis: \"pp\", schedule: \"zb-h1\" }"]
    );
}

#[test]
fn rustc_sees_every_word_of_the_vocabulary() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../frontends/mm/src");
    let files = std::fs::read_dir(folder).expect("the vocabulary").map(|e| e.expect("an entry").path());
    let text: String = files.map(|f| std::fs::read_to_string(f).expect("a file")).collect();
    let known: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    // `Some` and `None` are Rust's own.
    let missing: Vec<&str> = eval::words().filter(|w| !matches!(*w, "Some" | "None") && !known.contains(w)).collect();
    assert_eq!(missing, [""; 0], "words that frontends/mm does not declare");
}

/// What `config!` declares, with the values that a preset and `--set` give.
#[test]
fn figures_of_configs_are_evaluated() {
    let evaluated = |task, set: &[(&str, &str)]| {
        evaluate("qwen3.mm", &crate::model("qwen3.mm"), &options(task, Some("tiny"), set))
            .unwrap_or_else(|e| panic!("{e}"))
    };
    let figures = |set: &[(&str, &str)]| {
        let configs = evaluated("train", set).configs;
        assert_eq!(configs.len(), 1);
        assert_eq!(&*configs[0].class, "Qwen3ForCausalLM");
        configs.into_iter().flat_map(|c| c.figures).collect::<Vec<_>>()
    };
    let shown = |set: &[(&str, &str)], key: &str| {
        let figures = figures(set);
        let figure = figures.iter().find(|f| f.keys.iter().any(|k| **k == *key)).expect("declared");
        let default = figure.default.as_ref().map(ToString::to_string);
        let keys: Vec<&str> = figure.keys.iter().map(|k| k.as_str()).collect();
        format!(
            "{} {} | {}: {}",
            figure.setting.as_deref().unwrap_or("-"),
            keys.join(" | "),
            default.unwrap_or_default(),
            figure.value
        )
    };
    let theta = "rope_parameters.rope_theta | rope_scaling.rope_theta | rope_theta";
    assert_eq!(shown(&[], "rope_theta"), format!("THETA {theta} | 10000: 1000000"));
    assert_eq!(shown(&[("THETA", "5e6")], "rope_theta"), format!("THETA {theta} | 10000: 5000000"));
    assert_eq!(shown(&[], "num_key_value_heads"), "KV_HEADS num_key_value_heads | 32: 2");
    assert_eq!(shown(&[("TIE", "false")], "tie_word_embeddings"), "TIE tie_word_embeddings | false: false");
    let kind = "rope_parameters.rope_type | rope_scaling.rope_type | rope_scaling.type";
    assert_eq!(shown(&[], "rope_scaling.type"), format!("text_decoder.rope.rotary.KIND {kind} | default: default"));
}
