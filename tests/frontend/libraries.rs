//! Files that use others: instances with dims of their own, one reader of `use`, and what mistakes look like.

use std::collections::BTreeMap;

use diag::Sources;
use eval::{Evaluated, Options, Origin, Sibling};

use crate::options;

/// A layer over the width DIM, with heads of its own.
const VISION: &str = "use mm::prelude::*;
use super::scale::scaled;
instances! { scale { BY = 2.0 * EPS } }
dims! { B, DIM = 8, HEADS = 2, HEAD = DIM / HEADS, T: free }
pub const EPS: f64 = 0.5;
#[derive(Module)]
pub struct Tower { up: Linear }
impl Tower {
    pub fn new() -> Self { Self { up: linear(DIM, DIM).keep(f32) } }
    pub fn forward(&self, x: Tensor![B, T, DIM; f32]) -> Tensor![B, T, DIM; f32] {
        scaled(self.up.forward(x).split(DIM, [HEADS, HEAD]).merge([HEADS, HEAD], DIM))
    }
}
";

const SCALE: &str = "use mm::prelude::*;
pub const BY: f64 = 1.0;
pub fn scaled(x: Tensor) -> Tensor { x * BY }
";

/// A model of two towers of one file, with `uses` at its top and `body` as its task.
fn model(uses: &str, body: &str) -> String {
    format!(
        "use mm::prelude::*;
{uses}
dims! {{ B, L = 6, WIDTH = 12 }}
#[derive(Module)]
pub struct Net {{ wide: wide::Tower, narrow: narrow::Tower }}
impl Net {{ pub fn new() -> Self {{ Self {{ wide: wide::Tower::new(), narrow: narrow::Tower::new() }} }} }}
pub fn train(net: &Net, x: Tensor![B, L, WIDTH; f32], y: Tensor![B, L, narrow::DIM; f32]) -> Tensor![; f32] {{
    {body}
}}
pub fn plan(p: &mut Plan) {{ p.shard(wide::HEADS, \"tp\").shard(narrow::HEADS, \"tp\").shard(narrow::scale::K, \"cp\"); }}
"
    )
}

const USES: &str = "use super::layers::{vision as wide, vision as narrow};
instances! { wide { DIM = WIDTH, HEADS = 3 }, narrow { EPS = 0.25 } }";
const BODY: &str = "net.wide.forward(x).mean() + net.narrow.forward(y).mean()";

struct Files(BTreeMap<&'static str, String>);

impl Files {
    fn of(texts: &[(&'static str, &str)]) -> Self {
        Self(texts.iter().map(|(name, text)| (*name, (*text).to_string())).collect())
    }

    /// `net.mm` with all that it uses, or its rendered errors.
    fn evaluate(&self, asked: &Options) -> Result<(Evaluated, Vec<String>), String> {
        let mut sources = Sources::default();
        let main = sources.add("net.mm", self.0["net.mm"].clone());
        let mut read = vec![];
        let evaluated = eval::evaluate(&mut sources, main, asked, &mut |name, of| {
            let built_in = format!("built-in/{name}");
            let own = self.0.get(name).filter(|_| of == Origin::Folder).map(|text| (text, Origin::Folder));
            let (text, origin) = own.or_else(|| Some((self.0.get(built_in.as_str())?, Origin::BuiltIn)))?;
            read.push(if origin == Origin::BuiltIn { built_in } else { name.to_string() });
            Some(Sibling { path: name.into(), text: text.clone(), origin })
        });
        let evaluated = evaluated.map_err(|errors| diag::render(&errors, &sources, false))?;
        Ok((evaluated, read))
    }

    fn refusal(&self, set: &[(&str, &str)]) -> String {
        match self.evaluate(&options("train", None, set)) {
            Ok((evaluated, _)) => panic!("{}", evaluated.module),
            Err(said) => said,
        }
    }
}

fn towers(uses: &str, body: &str) -> Files {
    let scale = SCALE.replace("pub const", "dims! { K = 4 }\npub const");
    Files::of(&[("net.mm", &model(uses, body)), ("layers/vision.mm", VISION), ("layers/scale.mm", &scale)])
}

fn sizes(evaluated: &Evaluated) -> Vec<String> {
    evaluated.dims.iter().map(|(name, size)| format!("{name}:{size}")).collect()
}

/// Each instance has sizes of its own; a dim that is given a dim is that axis.
#[test]
fn instances_have_dims_of_their_own() {
    let (evaluated, read) = towers(USES, BODY).evaluate(&options("train", None, &[])).unwrap_or_else(|e| panic!("{e}"));
    let expect = [
        "B:1",
        "L:6",
        "WIDTH:12",
        "wide.HEADS:3",
        "wide.HEAD:4",
        "narrow.DIM:8",
        "narrow.HEADS:2",
        "narrow.HEAD:4",
        "narrow.scale.K:4",
    ];
    assert_eq!(sizes(&evaluated), expect);
    assert_eq!(read, ["layers/vision.mm", "layers/scale.mm"], "each file is read once");
    let text = evaluated.module.to_string();
    for words in
        ["wide.up.weight", "narrow.DIM.out:8", "WIDTH.out:12", "wide.HEADS:3", "constant() 1.0", "constant() 0.5"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    let directives: Vec<String> = evaluated.directives.0.iter().map(|(w, _)| format!("{w:?}")).collect();
    let shards = ["wide.HEADS\", axis: \"tp", "narrow.HEADS\", axis: \"tp", "narrow.scale.K\", axis: \"cp"];
    assert_eq!(directives, shards.map(|shard| format!("Shard {{ dim: \"{shard}\" }}")));
}

/// Presets, configs and `--set` reach the dims and constants of instances.
#[test]
fn settings_reach_instances() {
    let more = "presets! { \"a\" { narrow::HEADS = 4, narrow::EPS = 2.0 } }
config! { \"Net\" { narrow::HEADS = heads | 2, narrow::DIM = width, narrow::EPS = eps | 1.0 } }";
    let files = towers(&format!("{}\n{more}", USES.replace(", EPS = 0.25", "")), BODY);
    let asked = |set: &[(&str, &str)]| {
        let (evaluated, _) = files.evaluate(&options("train", None, set)).unwrap_or_else(|e| panic!("{e}"));
        (sizes(&evaluated).join(" "), evaluated)
    };
    let (text, evaluated) = asked(&[]);
    assert!(text.contains("narrow.HEADS:4 narrow.HEAD:2") && evaluated.module.to_string().contains("constant() 4.0"));
    let figures: Vec<String> = evaluated.configs[0]
        .figures
        .iter()
        .map(|figure| format!("{} {}", figure.setting.as_deref().unwrap_or("-"), figure.value))
        .collect();
    assert_eq!(figures, ["narrow.HEADS 4", "narrow.DIM 8", "narrow.EPS 2"]);
    let (text, _) = asked(&[("narrow.HEADS", "8"), ("wide.HEADS", "6"), ("narrow.scale.K", "5")]);
    assert!(text.contains("narrow.HEADS:8") && text.contains("wide.HEADS:6") && text.contains("narrow.scale.K:5"));
    let published = eval::Published {
        path: "config.json".into(),
        class: Some("Net".into()),
        facts: [("heads", 1), ("width", 16)].map(|(k, v)| (k.into(), types::Fact::Integer(v))).into(),
    };
    let asked = Options { published: Some(published), ..options("train", None, &[]) };
    let (evaluated, _) = files.evaluate(&asked).unwrap_or_else(|e| panic!("{e}"));
    assert!(sizes(&evaluated).join(" ").contains("narrow.DIM:16 narrow.HEADS:1 narrow.HEAD:16"));
}

/// A file beside the model goes before a built-in one; what built-in files use is built in.
#[test]
fn built_in_files_use_their_own() {
    let text = "use mm::prelude::*;
use super::layers::{own, shared::{self, scaled}};
instances! { shared {} }
dims! { B }
#[derive(Module)]
pub struct Net { w: Param }
impl Net { pub fn new() -> Self { Self { w: Param::ones([B]) } } }
pub fn train(net: &Net, x: Tensor![B; f32]) -> Tensor![; f32] { (scaled(x) + own::scaled(x) * net.w.keep(f32)).sum() }
";
    let uses = |by: &str| {
        format!(
            "use mm::prelude::*;\nuse super::scale;\npub fn scaled(x: Tensor) -> Tensor {{ x * scale::BY * {by} }}\n"
        )
    };
    let files = Files::of(&[
        ("net.mm", text),
        ("layers/own.mm", &uses("3.0")),
        ("layers/scale.mm", &SCALE.replace("1.0", "5.0")),
        ("built-in/layers/shared.mm", &uses("7.0")),
        ("built-in/layers/scale.mm", &SCALE.replace("1.0", "9.0")),
    ]);
    let (evaluated, read) = files.evaluate(&options("train", None, &[])).unwrap_or_else(|e| panic!("{e}"));
    let text = evaluated.module.to_string();
    assert_eq!(read, ["layers/own.mm", "layers/scale.mm", "built-in/layers/shared.mm", "built-in/layers/scale.mm"]);
    let at = |value: &str| text.find(&format!("constant() {value}")).unwrap_or_else(|| panic!("{value}: {text}"));
    assert!(at("9.0") < at("7.0") && at("7.0") < at("5.0") && at("5.0") < at("3.0"), "{text}");
}

#[test]
fn mistakes() {
    let part = |uses: &str| format!("use mm::prelude::*;\n{uses}\npub fn f(x: Tensor) -> Tensor {{ x }}\n");
    let circle = |c: &str| {
        let main = model("use super::a::f;", "x.sum()");
        Files::of(&[("net.mm", &main), ("a.mm", &part("use super::b::f as g;")), ("b.mm", &part(c))]).refusal(&[])
    };
    let with = |uses: &str| towers(uses, BODY).refusal(&[]);
    let unsized_towers = Files::of(&[
        ("net.mm", &model(USES, BODY)),
        ("layers/vision.mm", &VISION.replace("DIM = 8", "DIM")),
        ("layers/scale.mm", &SCALE.replace("pub const", "dims! { K = 4 }\npub const")),
    ]);
    let messages = [
        // A contract that is violated says whose it is.
        towers(USES, "net.wide.forward(y).mean() + x.mean()").refusal(&[]),
        towers(USES, "net.narrow.forward(x.rename(WIDTH, narrow::DIM)).mean() + y.mean()").refusal(&[]),
        with(&USES.replace("HEADS = 3", "HEADS = 3, HEAD = 5")),
        // Files.
        with("use super::layers::{vison as wide, vision as narrow};"),
        with("use super::layers::vision::Towel;"),
        with("use super::layers::{vision as wide, scale as wide};"),
        with("use super::super::vision;"),
        with("use layers::vision;"),
        circle("use super::a::f as g;"),
        circle("use super::net::train;"),
        // Instances and their sizes.
        with(&USES.replace("narrow {", "narow {")),
        with(&USES.replace("HEADS = 3", "HAEDS = 3")),
        with(&USES.replace("HEADS = 3", "T = 3")),
        with(&USES.replace("HEADS = 3", "B = 3")),
        with(&USES.replace("HEADS = 3", "HEADS = 3, HEADS = 4")),
        with(&USES.replace("EPS = 0.25", "EPS = true")),
        unsized_towers.refusal(&[]),
        // Settings.
        towers(USES, BODY).refusal(&[("narrow.HAEDS", "3")]),
        towers(USES, BODY).refusal(&[("wide.DIM", "3")]),
        towers(USES, BODY).refusal(&[("narrow.HEAD", "3")]),
        towers(USES, BODY).refusal(&[("narrow.T", "3")]),
        towers(USES, BODY).refusal(&[("narrow.B", "3")]),
        // Paths.
        towers(USES, "wide::tower(x).sum()").refusal(&[]),
        towers(USES, "wide.sum()").refusal(&[]),
    ];
    insta::assert_snapshot!(messages.join("\n"));
}

/// A model of layers by position, those for which `wide` holds of another kind.
fn layered(positions: &str, wide: &str) -> String {
    format!(
        "use mm::prelude::*;
dims! {{ B, DIM = 4, WIDE = 8, LAYERS = 8 }}
#[derive(Module)]
pub struct Layer {{ up: Linear, down: Option<Linear>, gain: f64 }}
impl Layer {{
    fn new(i: i64) -> Self {{
        let wide = {wide};
        Self {{ up: if wide {{ linear(DIM, WIDE) }} else {{ linear(DIM, DIM) }}, down: if wide {{ Some(linear(WIDE, DIM)) }} else {{ None }}, gain: 0.5 }}
    }}
    fn forward(&self, x: Tensor![B, DIM]) -> Tensor![B, DIM] {{
        let y = self.up.forward(x);
        x + self.gain * match &self.down {{ Some(down) => down.forward(y), None => y }}
    }}
}}
#[derive(Module)]
pub struct Net {{ layers: Stack<Layer> }}
impl Net {{ pub fn new() -> Self {{ Self {{ layers: stack_at({positions}, |i| Layer::new(i)) }} }} }}
pub fn forward(net: &Net, x: Tensor![B, DIM]) -> Tensor![B, DIM] {{ net.layers.fold(x, |x, layer| layer.forward(x)) }}
"
    )
}

/// What a stack's families are called, and what the fold calls.
fn families(text: &str, set: &[(&str, &str)]) -> (String, String, usize) {
    let evaluated =
        crate::evaluate("net.mm", text, &options("forward", None, set)).unwrap_or_else(|e| panic!("{text}\n{e}"));
    ir::verify(&evaluated.module).unwrap_or_else(|e| panic!("{e:?}"));
    let up = evaluated.module.parameters.keys().filter(|name| name.ends_with("up.weight"));
    let names: Vec<&str> = up.map(|name| name.trim_start_matches("layers.").trim_end_matches(".up.weight")).collect();
    let text = evaluated.module.to_string();
    let calls = text.split("call @layers").skip(1).map(|rest| rest.split(" carry").next().unwrap_or_default());
    let nodes = evaluated.module.functions.iter().map(|(_, f)| f.nodes.len()).sum();
    (names.join(" "), calls.collect::<Vec<_>>().join(" "), nodes)
}

#[test]
fn layers_of_one_kind_are_families_by_their_positions() {
    let check = |positions: &str, wide: &str, names: &str, calls: &str| {
        let (found, called, _) = families(&layered(positions, wide), &[]);
        assert_eq!((found.as_str(), called.as_str()), (names, calls), "{positions} {wide}");
    };
    check("LAYERS.range()", "false", "{}", " x8");
    check("LAYERS.range()", "i < 2", "{} {2..8}", " x2 .2 x6");
    check("LAYERS.range()", "i % 4 == 3", "{0,4} {1,5} {2,6} {3,7}", " x2");
    check("2..=4", "false", "{2..5}", " x3");
    check("[1, 5, 9, 13, 20]", "i == 20", "{1..14:4} {20}", " x4 .2 x1");
    check("[0, 1, 2, 3]", "i == 0 || i == 3", "{} {1..3} {3}", " x1 .2 x2 .3 x1");
}

/// A pattern is traced once: as many nodes for 40 layers as for 8.
#[test]
fn depth_does_not_matter_to_patterns() {
    for wide in ["i < 2", "i % 4 == 3", "i % 8 == 7"] {
        let nodes = |layers| families(&layered("LAYERS.range()", wide), &[("LAYERS", layers)]).2;
        assert_eq!(nodes("40"), nodes("400"), "{wide}");
        assert!(wide == "i % 8 == 7" || nodes("8") == nodes("40"), "{wide}");
    }
}

/// What a layer has beside parameters makes a kind of its own.
#[test]
fn fields_make_kinds() {
    let text = layered("LAYERS.range()", "false");
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        families(&text.replace(from, to), &[]).0
    };
    assert_eq!(with("gain: 0.5", "gain: if i == 7 { 0.25 } else { 0.5 }"), "{} {7}");
    assert_eq!(
        with("linear(DIM, DIM)", "if i == 0 { linear(DIM, DIM).frozen() } else { linear(DIM, DIM) }"),
        "{} {1..8}"
    );
    assert_eq!(with("gain: 0.5", "gain: 1.0 / (1.0 + (i * 0) as f64)"), "{}");
}

#[test]
fn positions_are_checked() {
    let messages = ["[]", "3..3", "[2, 1]", "[-1, 1]", "0..100_000_000", "3", "[0.5]"].map(|positions| {
        let text = layered(positions, "false");
        let said = crate::evaluate("net.mm", &text, &options("forward", None, &[])).map(|e| e.module.to_string());
        said.expect_err("an error")
    });
    insta::assert_snapshot!(messages.join("\n"));
}
