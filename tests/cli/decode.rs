//! A toy that decodes with a cache of keys and values: step by step it computes what one pass over all tokens does, on one
//! rank and on several, and over an interruption.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use tests::binaries::{command, run};
use tests::outputs::{Tensors, distance, read};

const MODEL: &str = "use mm::prelude::*;

dims! { B, S = 6, ONE = 1, LAYERS = 3, HEADS = 4, HEAD = 8, DIM = 32, WIDTH = HEADS * HEAD }

#[derive(Module)]
pub struct Block {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
}

impl Block {
    fn new() -> Self {
        let across = || linear(DIM, WIDTH).no_bias();
        Self { q: across(), k: across(), v: across(), o: linear(WIDTH, DIM).no_bias() }
    }

    fn heads(&self, x: Tensor) -> (Tensor, Tensor, Tensor) {
        let cut = |x: Tensor| x.split(WIDTH, [HEADS, HEAD]);
        (cut(self.q.forward(x)), cut(self.k.forward(x)), cut(self.v.forward(x)))
    }

    fn forward(&self, x: Tensor![B, S, DIM]) -> Tensor![B, S, DIM] {
        let (q, k, v) = self.heads(x);
        x + self.o.forward(attend_causal(q, k, v).merge([HEADS, HEAD], WIDTH))
    }

    /// One token, with what is known of those before; and that with the token's own.
    fn step(&self, x: Tensor![B, ONE, DIM], at: Tensor, keys: Tensor, values: Tensor) -> (Tensor, (Tensor, Tensor)) {
        let (q, k, v) = self.heads(x);
        let (keys, values) = (keys.write(S, at, k), values.write(S, at, v));
        let seen = attend_causal(q, keys.cast(work), values.cast(work)).positions(at, iota(S, i64));
        (x + self.o.forward(seen.merge([HEADS, HEAD], WIDTH)), (keys, values))
    }
}

#[derive(Module)]
pub struct Net {
    blocks: Stack<Block>,
}

impl Net {
    pub fn new() -> Self {
        Self { blocks: stack(LAYERS, || Block::new()) }
    }
}

pub fn forward(net: &Net, x: Tensor![B, S, DIM]) -> Tensor![B, S, DIM] {
    net.blocks.fold(x, |x, block| block.forward(x))
}

pub struct Next {
    pub out: Tensor,
    pub position: Tensor,
    pub keys: Stack<Tensor>,
    pub values: Stack<Tensor>,
}

pub fn step(
    net: &Net,
    x: Tensor![B, ONE, DIM],
    position: State![; i64],
    keys: Stack<State![LAYERS, B, S, HEADS, HEAD; f32]>,
    values: Stack<State![LAYERS, B, S, HEADS, HEAD; f32]>,
) -> Next {
    let at = position.expand([ONE]);
    let layers = net.blocks.zip(&keys.zip(&values));
    let (out, caches) = layers.scan(x, |x, (block, (keys, values))| block.step(x, at, *keys, *values));
    let (keys, values) = caches.unzip();
    Next { out, position: position + 1, keys, values }
}

pub fn plan(p: &mut Plan) {
    p.shard(B, \"dp\").shard(S, \"cp\").shard(HEADS, \"tp\").shard(WIDTH, \"tp\");
}
";

const TOKENS: usize = 6;
const WIDTH: usize = 32;

/// Numbers of a sample, a token and a channel.
fn number(sample: usize, token: usize, channel: usize) -> f32 {
    ((sample * 71 + token * 37 + channel * 13) % 29) as f32 / 14.0 - 1.0
}

fn write(path: &Path, tokens: std::ops::Range<usize>) {
    let count = tokens.len();
    let of = |sample| tokens.clone().flat_map(move |token| (0..WIDTH).map(move |c| number(sample, token, c)));
    let bytes: Vec<u8> = [0, 1].into_iter().flat_map(of).flat_map(f32::to_le_bytes).collect();
    let view = TensorView::new(Dtype::F32, vec![2, count, WIDTH], &bytes).expect("a tensor");
    std::fs::write(path, safetensors::serialize([("x", view)], None).expect("a file")).expect("written");
}

struct Toy {
    work: tempfile::TempDir,
}

impl Toy {
    fn new() -> Self {
        let work = tempfile::tempdir().expect("a folder");
        std::fs::write(work.path().join("net.mm"), MODEL).expect("the model");
        write(&work.path().join("all.safetensors"), 0..TOKENS);
        std::fs::create_dir(work.path().join("tokens")).expect("a folder");
        for token in 0..TOKENS {
            write(&work.path().join(format!("tokens/step-{token}.safetensors")), token..token + 1);
        }
        Self { work }
    }

    fn compile(&self, task: &str, more: &str) {
        let mut compile = command("mmc");
        compile
            .current_dir(self.work.path())
            .args(["compile", "net.mm", "--task", task, "--batch", "2", "--dtype", "f32"]);
        run(compile.args(["-o", "plan.bin"]).args(more.split_whitespace())).expect("compiles");
    }

    fn run(&self, words: &str) -> Tensors {
        let mut execute = command("mmrun");
        execute.current_dir(self.work.path()).args(["plan.bin", "--outputs", "out.safetensors"]);
        run(execute.args(words.split_whitespace())).expect("runs");
        read(&self.work.path().join("out.safetensors")).expect("outputs")
    }
}

/// Of all tokens' rows those of the last.
fn last(all: &[f64]) -> Vec<f64> {
    all.chunks(TOKENS * WIDTH).flat_map(|sample| sample[(TOKENS - 1) * WIDTH..].to_vec()).collect()
}

#[test]
fn steps_with_a_cache_are_one_pass_over_all_tokens() {
    let toy = Toy::new();
    toy.compile("forward", "");
    let whole = last(&toy.run("--inputs all.safetensors")["out"]);
    for mesh in ["", "--dp 2", "--tp 2", "--cp 2 --ulysses 1", "--cp 4 --ulysses 1"] {
        toy.compile("step", mesh);
        let steps = toy.run(&format!("--inputs tokens --steps {TOKENS}"));
        let apart = distance(&whole, &steps["out"]);
        assert!(apart < 2e-6, "{mesh}: {apart}");
    }
}

/// A cache is saved and found again like any state.
#[test]
fn a_cache_goes_on_where_a_checkpoint_ends() {
    let toy = Toy::new();
    toy.compile("step", "");
    let at_once = toy.run(&format!("--inputs tokens --steps {TOKENS}"));
    toy.run("--inputs tokens --steps 4 --save kept --save-every 4");
    let later = toy.run("--inputs tokens --until 6 --resume kept/step-000004");
    assert_eq!(at_once["out"], later["out"]);
}

/// The caches change where they lie: no copy of one is in the program.
#[test]
fn caches_are_written_in_place() {
    let toy = Toy::new();
    let mut ir = command("mmc");
    ir.current_dir(toy.work.path()).args(["ir", "net.mm", "--task", "step", "--dtype", "f32", "--after", "in-place"]);
    let text = String::from_utf8(run(&mut ir).expect("a program").stdout).expect("text");
    assert!(text.contains("keys.2"), "{text}");
    let copies: Vec<&str> = text.lines().filter(|line| line.contains("copy(")).collect();
    assert!(copies.is_empty(), "{copies:?}");
}

#[test]
fn an_older_version_is_refused_at_its_place() {
    let toy = Toy::new();
    let late = MODEL
        .replace("attend_causal(q, keys.cast(work), ", "attend_causal(q, older.cast(work), ")
        .replace("let (keys, values) = (keys.write", "let older = keys;\n        let (keys, values) = (keys.write");
    std::fs::write(toy.work.path().join("net.mm"), late).expect("the model");
    let mut check = command("mmc");
    check.current_dir(toy.work.path()).args(["check", "net.mm", "--task", "step"]);
    let error = run(&mut check).expect_err("is refused");
    for part in ["as it was before something was written to it", "net.mm", "read here", "written here"] {
        assert!(error.contains(part), "{error}");
    }
}

/// What nobody has written yet is 0, in whatever type the state is.
#[test]
fn caches_start_empty() {
    let folder = tempfile::tempdir().expect("a folder");
    for of in ["f32", "work"] {
        let model = format!(
            "use mm::prelude::*;\n\ndims! {{ B, N = 3, S = 8, DIM = 4 }}\n\n#[derive(Module)]\npub struct Net {{\n    g: Param,\n}}\n\n\
             impl Net {{\n    pub fn new() -> Self {{\n        Self {{ g: Param::ones([DIM]) }}\n    }}\n}}\n\n\
             pub struct Next {{\n    pub keys: Tensor,\n}}\n\n\
             pub fn forward(net: &Net, x: Tensor![B, N, DIM], at: Tensor![B, N; i64], keys: State![B, S, DIM; {of}]) -> Next {{\n    \
             Next {{ keys: keys.write(S, at, (x * net.g).cast({of})) }}\n}}\n"
        );
        std::fs::write(folder.path().join("net.mm"), model).expect("the model");
        let mut ir = command("mmc");
        ir.current_dir(folder.path()).args(["ir", "net.mm", "--task", "forward", "--set", "B=2", "--after", "eval"]);
        let text = String::from_utf8(run(&mut ir).expect("a graph").stdout).expect("text");
        let state = text.lines().find(|line| line.starts_with("state \"keys\"")).expect("a state");
        assert!(state.ends_with("\"zeros\""), "{of}: {state}");
    }
}
