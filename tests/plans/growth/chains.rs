//! Programs in text form: so many operators in a row, each made from the one before.

/// A function under construction.
pub struct Text {
    lines: String,
    next: usize,
}

/// Writes what comes after the value of a number; both are f32[A:8, B:32].
type Next = fn(&mut Text, usize) -> usize;

/// Parameters of all chains: values, and what some operators read beside them.
const PARAMS: &str = "%0: f32[A:8, B:32], %1: f32[B:32], %2: f32[P:16], %3: f32[C:32, B:32]";
const INPUTS: &str = r#"
  in {"feed":{"name":"x","draw":{"normal":{"mean":0.0,"std":1.0}}}}
  in {"parameter":"w"}
  in {"feed":{"name":"angles","draw":{"normal":{"mean":0.0,"std":1.0}}}}
  in {"feed":{"name":"m","draw":{"normal":{"mean":0.0,"std":1.0}}}}"#;

const TY: &str = "f32[A:8, B:32]";

pub const CASES: &[(&str, Next)] = &[
    ("neg", |t, y| t.op(&format!("neg(%{y})"))),
    ("abs", |t, y| t.op(&format!("abs(%{y})"))),
    ("exp", |t, y| t.op(&format!("exp(%{y})"))),
    ("expm1", |t, y| t.op(&format!("expm1(%{y})"))),
    ("log", |t, y| t.op(&format!("log(%{y})"))),
    ("sqrt", |t, y| t.op(&format!("sqrt(%{y})"))),
    ("rsqrt", |t, y| t.op(&format!("rsqrt(%{y})"))),
    ("tanh", |t, y| t.op(&format!("tanh(%{y})"))),
    ("sin", |t, y| t.op(&format!("sin(%{y})"))),
    ("cos", |t, y| t.op(&format!("cos(%{y})"))),
    ("sigmoid", |t, y| t.op(&format!("sigmoid(%{y})"))),
    ("erf", |t, y| t.op(&format!("erf(%{y})"))),
    ("gelu_tanh", |t, y| t.op(&format!("gelu_tanh(%{y})"))),
    ("silu", |t, y| t.op(&format!("silu(%{y})"))),
    ("swiglu", |t, y| t.op(&format!("swiglu(%{y}, %{y})"))),
    ("add", |t, y| t.op(&format!("add(%{y}, %0)"))),
    ("add to itself", |t, y| t.op(&format!("add(%{y}, %{y})"))),
    ("sub", |t, y| t.op(&format!("sub(%0, %{y})"))),
    ("mul", |t, y| t.op(&format!("mul(%{y}, %0)"))),
    ("div", |t, y| t.op(&format!("div(%{y}, %0)"))),
    ("max", |t, y| t.op(&format!("max(%{y}, %0)"))),
    ("min", |t, y| t.op(&format!("min(%{y}, %1)"))),
    ("square and add", |t, y| {
        let square = t.op(&format!("mul(%{y}, %{y})"));
        t.op(&format!("add(%{square}, %{y})"))
    }),
    ("select", |t, y| {
        let less = t.line(&format!("compare(%{y}, %0) {{\"kind\":\"less\"}}"), "bool[A:8, B:32]");
        t.op(&format!("select(%{less}, %{y}, %0)"))
    }),
    ("cast", |t, y| {
        let narrow = t.line(&format!("cast(%{y}) {{\"to\":\"bf16\"}}"), "bf16[A:8, B:32]");
        t.op(&format!("cast(%{narrow}) {{\"to\":\"f32\"}}"))
    }),
    ("softmax", |t, y| t.op(&format!("softmax(%{y}) {{\"dim\":\"B\"}}"))),
    ("rms_norm", |t, y| t.op(&format!("rms_norm(%{y}) {{\"dim\":\"B\",\"eps\":0.001}}"))),
    ("layer_norm", |t, y| t.op(&format!("layer_norm(%{y}) {{\"dim\":\"B\",\"eps\":0.001}}"))),
    ("rope", |t, y| t.op(&format!("rope(%{y}, %2, %2) {{\"dim\":\"B\",\"form\":\"half\"}}"))),
    ("rope of neighbours", |t, y| t.op(&format!("rope(%{y}, %2, %2) {{\"dim\":\"B\",\"form\":\"interleaved\"}}"))),
    ("sum of rows", |t, y| {
        let sum = t.line(&format!("reduce_sum(%{y}) {{\"dims\":[\"B\"]}}"), "f32[A:8]");
        t.op(&format!("sub(%{y}, %{sum})"))
    }),
    ("largest of columns", |t, y| {
        let most = t.line(&format!("reduce_max(%{y}) {{\"dims\":[\"A\"]}}"), "f32[B:32]");
        t.op(&format!("sub(%{y}, %{most})"))
    }),
    ("running sum", |t, y| t.op(&format!("cumsum(%{y}) {{\"dim\":\"B\",\"reverse\":false}}"))),
    ("sum of all", |t, y| {
        let sum = t.line(&format!("reduce_sum(%{y}) {{\"dims\":[\"A\",\"B\"]}}"), "f32[]");
        t.op(&format!("mul(%{y}, %{sum})"))
    }),
    ("roll", |t, y| {
        let front = t.line(&format!("slice(%{y}) {{\"dim\":\"B\",\"start\":0,\"size\":1}}"), "f32[A:8, B:1]");
        let back = t.line(&format!("slice(%{y}) {{\"dim\":\"B\",\"start\":1,\"size\":31}}"), "f32[A:8, B:31]");
        t.op(&format!("concat(%{back}, %{front}) {{\"dim\":\"B\"}}"))
    }),
    ("pad", |t, y| {
        let part = t.line(&format!("slice(%{y}) {{\"dim\":\"A\",\"start\":1,\"size\":7}}"), "f32[A:7, B:32]");
        let part = t.line(&format!("pad(%{part}) {{\"dim\":\"A\",\"before\":1,\"after\":0,\"value\":0.0}}"), TY);
        t.op(&format!("add(%{part}, %{y})"))
    }),
    ("transpose", |t, y| {
        let turned = t.line(&format!("transpose(%{y}) {{\"order\":[\"B\",\"A\"]}}"), "f32[B:32, A:8]");
        let turned = t.line(&format!("exp(%{turned})"), "f32[B:32, A:8]");
        t.op(&format!("transpose(%{turned}) {{\"order\":[\"A\",\"B\"]}}"))
    }),
    ("reshape", |t, y| {
        let dims = "{\"dims\":[{\"name\":\"F\",\"size\":256}]}";
        let flat = t.line(&format!("reshape(%{y}) {dims}"), "f32[F:256]");
        let flat = t.line(&format!("tanh(%{flat})"), "f32[F:256]");
        t.op(&format!("reshape(%{flat}) {{\"dims\":[{{\"name\":\"A\",\"size\":8}},{{\"name\":\"B\",\"size\":32}}]}}"))
    }),
    ("matmul", |t, y| {
        let spec = "{\"spec\":\"ab,cb->ac\",\"dims\":[\"A\",\"C\"]}";
        let product = t.line(&format!("matmul(%{y}, %3) {spec}"), "f32[A:8, C:32]");
        t.op(&format!(
            "reshape(%{product}) {{\"dims\":[{{\"name\":\"A\",\"size\":8}},{{\"name\":\"B\",\"size\":32}}]}}"
        ))
    }),
];

impl Text {
    fn line(&mut self, op: &str, ty: &str) -> usize {
        self.next += 1;
        self.lines.push_str(&format!("  %{} = {op} : {ty}\n", self.next));
        self.next
    }

    fn op(&mut self, op: &str) -> usize {
        self.line(op, TY)
    }

    fn chain(count: usize, next: Next) -> (Self, usize) {
        let mut text = Self { lines: String::new(), next: 3 };
        let mut y = text.op("add(%0, %1)");
        for _ in 0..count {
            y = next(&mut text, y);
        }
        (text, y)
    }

    fn module(&self, result: usize, output: &str, mesh: &str) -> String {
        let record = r#"{"init":"zeros","trainable":true}"#;
        let function = format!("fn @train({PARAMS}) {{\n{}  return %{result}\n}}\n", self.lines);
        let program = format!("program \"train\" = @train {{{INPUTS}\n  out {output}\n}}\n");
        format!("module \"chain\"\n{mesh}param \"w\" : f32[B:32] {record}\n{function}{program}")
    }
}

pub fn forward(count: usize, next: Next) -> String {
    let (text, y) = Text::chain(count, next);
    text.module(y, r#"{"emit":"y"}"#, "")
}

/// With a loss, and so a backward and an optimiser.
pub fn train(count: usize, next: Next) -> String {
    trained(count, next, "")
}

/// On two ranks, each with a half of the columns.
pub fn sharded(count: usize, next: Next) -> String {
    trained(count, next, "mesh [tp:2]\nhint {\"shard\":{\"dim\":\"B\",\"axes\":[\"tp\"]}}\n")
}

fn trained(count: usize, next: Next, mesh: &str) -> String {
    let (mut text, y) = Text::chain(count, next);
    let loss = text.line(&format!("reduce_sum(%{y}) {{\"dims\":[\"A\",\"B\"]}}"), "f32[]");
    text.module(loss, r#"{"loss":"loss"}"#, mesh)
}
