//! `mmc compare`: the first module, in order of computation, whose output differs between two runs.

use std::borrow::Cow;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use diag::{Diagnostic, Diagnostics};
use indexmap::IndexMap;
use safetensors::{Dtype, SafeTensors};

use crate::Done;
use crate::args::Compare;
use crate::output::print;

/// The tensors in the folder of a run, and its modules in order of computation.
const TENSORS: &str = "probes.safetensors";
const MODULES: &str = "modules.json";
/// Rows that are shown after the first over the tolerance.
const SHOWN: usize = 8;

/// What a run wrote.
struct Probes {
    tensors: IndexMap<String, Tensor>,
    /// Where each module stands in a `.mm` file, as far as that is known, in order of computation.
    order: Vec<(String, String)>,
}

struct Tensor {
    shape: Vec<usize>,
    values: Vec<f64>,
}

/// How a module's output in A differs from that in B.
struct Row<'p> {
    name: &'p str,
    place: &'p str,
    apart: Result<f64, String>,
    norms: [f64; 2],
    /// The dims stand in another order in A than in B.
    is_sorted: bool,
}

pub fn compare(args: &Compare) -> Done {
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let order = if a.order.is_empty() { &b.order } else { &a.order };
    let place = |name: &str| order.iter().find(|(n, _)| n == name).map_or("", |(_, place)| place.as_str());
    let mut names: Vec<&str> = order.iter().map(|(name, _)| name.as_str()).collect();
    names.extend(a.tensors.keys().map(String::as_str).filter(|n| !order.iter().any(|(name, _)| name == n)));
    let rows: Vec<Row<'_>> = names
        .into_iter()
        .filter_map(|name| {
            let (x, y) = (a.tensors.get(name)?, b.tensors.get(name)?);
            let place = [place(name), b.order.iter().find(|(n, _)| n == name).map_or("", |(_, p)| p)];
            let place = place.into_iter().find(|p| !p.is_empty()).unwrap_or("");
            Some(Row {
                name,
                place,
                apart: apart(x, y),
                norms: [norm(&x.values), norm(&y.values)],
                is_sorted: !same_layout(x, y),
            })
        })
        .collect();
    if rows.is_empty() {
        let some = |p: &Probes| p.tensors.keys().take(4).cloned().collect::<Vec<_>>().join(", ");
        return Err(Diagnostic::error("the two have no tensor of one name")
            .note(format!("A has {}", some(&a)))
            .note(format!("B has {}", some(&b)))
            .help("give both runs the same modules: `mmc compile --probe REGEX`, `probe_hf.py --probe REGEX`")
            .into());
    }
    let alone = |one: &Probes, other: &Probes| -> Vec<String> {
        one.tensors.keys().filter(|name| !other.tensors.contains_key(*name)).cloned().collect()
    };
    let alone = [("A", alone(&a, &b)), ("B", alone(&b, &a))];
    let over = |row: &Row<'_>| !row.apart.as_ref().is_ok_and(|apart| *apart <= args.tolerance);
    let first = rows.iter().position(over);
    print(&text(args, &rows, first, &alone))?;
    match first.map(|at| &rows[at]) {
        None => Ok(Diagnostics::default()),
        Some(row) => {
            let what = match &row.apart {
                Ok(apart) => format!("is {apart:.1e} apart, and {:.0e} is allowed", args.tolerance),
                Err(what) => what.clone(),
            };
            let error = Diagnostic::error(format!("`{}` {what}", row.name));
            let error =
                if row.place.is_empty() { error } else { error.note(format!("it is computed at {}", row.place)) };
            let before = first.is_some_and(|at| at > 0);
            Err(if before { error.note("what is computed before it agrees") } else { error }.into())
        }
    }
}

fn text(args: &Compare, rows: &[Row<'_>], first: Option<usize>, alone: &[(&str, Vec<String>); 2]) -> String {
    let mut out = String::new();
    let over = rows.iter().filter(|r| !r.apart.as_ref().is_ok_and(|apart| *apart <= args.tolerance)).count();
    let s = if rows.len() == 1 { "" } else { "s" };
    let _ = writeln!(out, "{} module{s} in both, {over} over {:.0e}", rows.len(), args.tolerance);
    for (side, names) in alone.iter().filter(|(_, names)| !names.is_empty()) {
        let shown = if args.all { names.len() } else { names.len().min(SHOWN) };
        let more = if shown < names.len() { ", .." } else { "" };
        let _ = writeln!(out, "{} in {side} alone: {}{more}", names.len(), names[..shown].join(", "));
    }
    let shown = match first {
        _ if args.all => 0..rows.len(),
        Some(at) => at.saturating_sub(2)..(at + SHOWN).min(rows.len()),
        None => rows.len().saturating_sub(2)..rows.len(),
    };
    let width = rows[shown.clone()].iter().map(|r| r.name.len()).max().unwrap_or(0);
    let _ = writeln!(out, "    {:width$}  {:>8}  {:>11}  {:>11}", "module", "apart", "norm in A", "norm in B");
    for (i, row) in rows.iter().enumerate().filter(|(i, _)| shown.contains(i)) {
        let mark = if Some(i) == first { "-->" } else { "   " };
        let Row { name, place, apart, norms: [a, b], is_sorted } = row;
        let place = place.split(" (").next().unwrap_or_default();
        let place = if *is_sorted { format!("{place}  (dims in another order: values sorted)") } else { place.into() };
        let apart = apart.as_ref().map_or_else(|_| "-".into(), |apart| format!("{apart:.1e}"));
        let _ = writeln!(out, "{mark} {name:width$}  {apart:>8}  {a:>11.4e}  {b:>11.4e}  {place}");
    }
    out
}

/// The norm of the difference over the norm in B. Of tensors whose dims stand in another order, the values are compared
/// from the least to the greatest.
fn apart(x: &Tensor, y: &Tensor) -> Result<f64, String> {
    if x.values.len() != y.values.len() {
        return Err(format!("has the shape {:?} in A and {:?} in B", x.shape, y.shape));
    }
    let sorted = |t: &Tensor| {
        let mut values = t.values.clone();
        values.sort_by(f64::total_cmp);
        Cow::Owned(values)
    };
    let [a, b]: [Cow<'_, [f64]>; 2] = match same_layout(x, y) {
        true => [&x.values, &y.values].map(|values| values.as_slice().into()),
        false => [sorted(x), sorted(y)],
    };
    let difference: Vec<f64> = a.iter().zip(b.iter()).map(|(a, b)| a - b).collect();
    let (difference, size) = (norm(&difference), norm(&y.values));
    match difference {
        d if d.is_nan() => Err("has numbers that are not finite".into()),
        0.0 => Ok(0.0),
        d => Ok(d / size.max(f64::MIN_POSITIVE)),
    }
}

/// Whether the shapes are equal but for dims of size 1, which come and go between implementations.
fn same_layout(x: &Tensor, y: &Tensor) -> bool {
    let real = |t: &Tensor| t.shape.iter().copied().filter(|size| *size != 1).collect::<Vec<_>>();
    real(x) == real(y)
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn read(path: &Path) -> Result<Probes, Diagnostics> {
    let is_folder = path.is_dir();
    let file = if is_folder { path.join(TENSORS) } else { path.to_owned() };
    let cannot = |what: String| Diagnostic::error(format!("cannot read {}: {what}", file.display()));
    let bytes = fs::read(&file).map_err(|e| {
        cannot(e.to_string()).help("`mmrun PLAN --probe REGEX -o DIR` and `scripts/probe_hf.py` write such folders")
    })?;
    let read = SafeTensors::deserialize(&bytes).map_err(|e| cannot(e.to_string()))?;
    let mut tensors = IndexMap::new();
    for (name, view) in read.iter() {
        let values = floats(view.dtype(), view.data()).map_err(|what| cannot(format!("`{name}` is {what}")))?;
        tensors.insert(name.to_string(), Tensor { shape: view.shape().to_vec(), values });
    }
    tensors.sort_keys();
    let list = if is_folder { fs::read_to_string(path.join(MODULES)).unwrap_or_default() } else { String::new() };
    Ok(Probes { tensors, order: order(&list).map_err(|e| cannot(format!("{MODULES}: {e}")))? })
}

/// `[{"name": "blocks.0.attn1", "place": "wan2.2.mm:225:10"}, ..]`
fn order(text: &str) -> Result<Vec<(String, String)>, serde_json::Error> {
    if text.trim().is_empty() {
        return Ok(vec![]);
    }
    let list: Vec<IndexMap<String, String>> = serde_json::from_str(text)?;
    let get = |entry: &IndexMap<String, String>, key: &str| entry.get(key).cloned().unwrap_or_default();
    Ok(list.iter().map(|entry| (get(entry, "name"), get(entry, "place"))).collect())
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Result<Vec<f64>, String> {
    Ok(match dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        Dtype::F64 => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        Dtype::I64 => bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
        Dtype::BF16 => {
            let wide = |b: &[u8; 2]| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16));
            bytes.as_chunks::<2>().0.iter().map(wide).collect()
        }
        other => return Err(format!("of the type {other:?}; f32, f64, bf16 and i64 are compared")),
    })
}
