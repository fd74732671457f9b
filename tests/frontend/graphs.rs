//! The graphs of the published models: small ones whole, and that depth does not show in their size.

use crate::{evaluate, model, options};

fn check(model_name: &str, task: &str, preset: &str, set: &[(&str, &str)]) -> ir::Module {
    let evaluated =
        evaluate(model_name, &model(model_name), &options(task, Some(preset), set)).unwrap_or_else(|e| panic!("{e}"));
    ir::verify(&evaluated.module).expect("a sound module");
    let text = evaluated.module.to_string();
    assert_eq!(ir::parse(&text).expect("text reads back").to_string(), text);
    evaluated.module
}

#[test]
fn the_graph_of_a_tiny_wan_train_step() {
    insta::assert_snapshot!(check("wan2.2.mm", "train", "tiny", &[]).to_string());
}

#[test]
fn the_graph_of_a_tiny_qwen3_train_step() {
    insta::assert_snapshot!(check("qwen3.mm", "train", "tiny", &[]).to_string());
}

#[test]
fn every_preset_and_task_evaluates() {
    for (name, presets, tasks) in [
        (
            "wan2.2.mm",
            &["t2v-a14b", "i2v-a14b", "ti2v-5b", "wan2.1-t2v-1.3b", "wan2.1-t2v-14b", "mini", "tiny"][..],
            &["forward", "train", "sample"][..],
        ),
        ("qwen3.mm", &["0.6b", "1.7b", "4b", "8b", "14b", "32b", "tiny"], &["forward", "train"]),
    ] {
        for preset in presets {
            for task in tasks {
                check(name, task, preset, &[]);
            }
        }
    }
}

#[test]
fn presets_have_the_published_sizes() {
    let count = |name: &str, preset: &str| {
        let parameters = check(name, "forward", preset, &[]).parameter_count();
        format!("{preset} {:.3} B", parameters as f64 / 1e9)
    };
    let wan = ["t2v-a14b", "i2v-a14b", "ti2v-5b", "wan2.1-t2v-1.3b", "wan2.1-t2v-14b"];
    let qwen = ["0.6b", "1.7b", "4b", "8b", "14b", "32b"];
    let sizes: Vec<String> =
        wan.iter().map(|p| count("wan2.2.mm", p)).chain(qwen.iter().map(|p| count("qwen3.mm", p))).collect();
    insta::assert_snapshot!(sizes.join("\n"));
}

#[test]
fn depth_shows_in_one_number_only() {
    let text = |layers: &str| check("wan2.2.mm", "train", "tiny", &[("LAYERS", layers)]).to_string();
    let forty = text("40").replace("x40 ", "xN ").replace(" 40 x ", " N x ");
    let four_hundred = text("400").replace("x400 ", "xN ").replace(" 400 x ", " N x ");
    assert_eq!(forty, four_hundred);
    assert!(text("1").contains("call @blocks x1 "), "one layer takes the same path");
}

/// As diffusers' WanRotaryPosEmbed splits a head: rows and columns have 2 * (head / 6) of it each, the frame the rest.
#[test]
fn narrow_heads_turn_with_the_frame_alone() {
    for head in [2, 4] {
        let module = check("wan2.2.mm", "train", "tiny", &[("HEAD", &head.to_string())]);
        let nodes = module.functions.iter().flat_map(|(_, f)| f.nodes.iter().map(|(_, n)| n));
        let tables: Vec<&ir::ops::Table> = nodes
            .filter_map(|n| match &n.inst {
                ir::Inst::Op(ir::Op::Table(table)) if table.dims.iter().any(|d| d.name == *"grid_rope.PAIRS") => {
                    Some(table)
                }
                _ => None,
            })
            .collect();
        let [cos, sin] = tables.as_slice() else { panic!("{} tables of angles", tables.len()) };
        let pairs = head / 2;
        for (i, (cos, sin)) in cos.data.iter().zip(&sin.data).enumerate() {
            let angle = (i / pairs) as f64 / 10_000_f64.powf(2.0 * (i % pairs) as f64 / head as f64);
            assert!((cos - angle.cos()).abs() < 1e-7 && (sin - angle.sin()).abs() < 1e-7, "{head}: {i}");
        }
        assert_eq!(cos.data.len(), 2 * pairs, "frames by pairs");
    }
}

#[test]
fn times_of_a_sample_are_not_spread_over_its_tokens() {
    let module = check("wan2.2.mm", "train", "t2v-a14b", &[]);
    for (_, function) in module.functions.iter() {
        let spread = function
            .nodes
            .iter()
            .find(|(_, n)| n.ty.element().is_some_and(|ty| ty.size_of("L").is_some() && ty.size_of("SIX").is_some()));
        assert!(spread.is_none(), "@{}: six modulations a token", function.name);
    }
}

#[test]
fn training_never_holds_all_logits() {
    let module = check("qwen3.mm", "train", "0.6b", &[("S", "4096")]);
    let widest = module.functions.iter().flat_map(|(_, f)| f.nodes.iter()).filter_map(|(_, node)| {
        let ty = node.ty.element()?;
        ty.size_of("VOCAB").map(|vocab| ty.elements() / vocab).filter(|_| ty.size_of("HIDDEN").is_none())
    });
    assert_eq!(widest.max(), Some(1024), "rows of logits at once");
}

/// Evaluation is as much work for 4,000 layers as for 40.
#[test]
fn depth_does_not_matter_to_evaluation() {
    let nodes = |layers: &str| -> usize {
        let module = check("wan2.2.mm", "train", "t2v-a14b", &[("LAYERS", layers)]);
        module.functions.iter().map(|(_, f)| f.nodes.len()).sum()
    };
    assert_eq!(nodes("40"), nodes("4000"));
}

#[test]
fn every_node_knows_where_it_was_written() {
    let text = model("wan2.2.mm");
    let mut sources = diag::Sources::default();
    let file = sources.add("wan2.2.mm", &*text);
    let asked = options("train", Some("tiny"), &[]);
    let module = eval::evaluate(&mut sources, file, &asked, &mut crate::used).expect("a module").module;
    for (_, function) in module.functions.iter() {
        let lost = function.nodes.iter().find(|(_, n)| module.places.get(n.place).is_none());
        assert!(lost.is_none(), "@{}: {lost:?}", function.name);
    }
    let block = &module.functions[module.function_named("Block.forward").expect("a block")];
    let (_, gelu) =
        block.nodes.iter().find(|(_, n)| matches!(n.inst, ir::Inst::Op(ir::Op::GeluTanh(_)))).expect("gelu");
    let words = |span: diag::Span| &sources.text(span.source)[span.start as usize..span.end as usize];
    let chain: Vec<&str> = module.places.chain(gelu.place).map(words).collect();
    assert_eq!(
        chain,
        [
            "gelu_tanh()",
            "in_f32(|x| x + self.down.forward(self.up.forward(f).gelu_tanh()) * gate_f)",
            "forward(x, six, of_token, text, picture, rope)",
            "fold(x, |x, block| block.forward(x, six, of_token, text, picture, rope))",
            "forward(x.cast(work), t * 1000.0, None, encoder_hidden_states, picture)",
        ]
    );
}
