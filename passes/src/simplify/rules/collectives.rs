//! Rules of collectives: fewer of them, with less to carry. Sums over ranks may be taken in another order than before,
//! so the last bits of their results may change.

use std::collections::HashSet;

use egg::Id;
use ir::Op;
use ir::ops::{
    Add, AllGather, AllReduce, AllToAll, Broadcast, Cast, Concat, Constant, Coordinate, Mul, ReduceScatter, Transpose,
    Window,
};
use types::{DType, Dim, Name};

use super::super::site::Site;
use super::{Of, Rule, found};

pub const RULES: &[Rule] = &[
    Rule {
        name: "sums travel together",
        law: "all_reduce(x) + y + all_reduce(z) = all_reduce(x + z) + y, and so for reduce_scatter",
        of: Of::Op("add"),
        apply: |s| {
            let mut sums: Vec<(Option<Op>, Vec<Id>)> = vec![];
            for (reduction, x) in terms(s) {
                match sums.iter_mut().find(|(r, _)| r.is_some() && alike(r.as_ref(), reduction.as_ref())) {
                    Some((_, together)) => together.push(x),
                    None => sums.push((reduction, vec![x])),
                }
            }
            if sums.iter().all(|(_, together)| together.len() == 1) {
                return vec![];
            }
            let dims = s.ty.dims.to_vec();
            let each: Option<Vec<Id>> = sums.into_iter().map(|(r, xs)| reduced(s, r.as_ref(), &xs, &dims)).collect();
            found(each.and_then(|each| sum(s, &each)))
        },
        example: "fn @f(%0: f32[A:3], %1: f32[A:3], %2: f32[B:3]) {
            %3 = all_reduce(%0) {\"axes\":[\"x\"],\"ranks\":2} : f32[A:3]
            %4 = add(%3, %1) : f32[A:3]
            %5 = reshape(%4) {\"dims\":[{\"name\":\"B\",\"size\":3}]} : f32[B:3]
            %6 = all_reduce(%2) {\"axes\":[\"x\"],\"ranks\":2} : f32[B:3]
            %7 = add(%5, %6) : f32[B:3]
            return %7 }",
    },
    Rule {
        name: "parts of a sum travel together",
        law: "concat(all_reduce(x), all_reduce(y)) = all_reduce(concat(x, y)), and so for reduce_scatter",
        of: Of::Op("concat"),
        apply: |s| {
            let Op::Concat(join) = s.op else { return vec![] };
            let join: Concat = join.clone();
            let mut first: Option<Op> = None;
            let mut parts = vec![];
            for part in s.args() {
                let Some((reduction, x)) = reduction(s, part) else { return vec![] };
                if first.as_ref().is_some_and(|f| !alike(Some(f), Some(&reduction))) {
                    return vec![];
                }
                let dims = s.ty_of(part).map(|t| t.dims.to_vec()).unwrap_or_default();
                parts.push((x, dims));
                first = first.or(Some(reduction));
            }
            let Some(reduction) = first.filter(|_| parts.len() > 1) else { return vec![] };
            let all = s.ty.dims.to_vec();
            let parts: Option<Vec<Id>> =
                parts.into_iter().map(|(x, dims)| laid_out(s, &reduction, x, &dims, &all)).collect();
            found(parts.and_then(|parts| s.make(join, &parts)).and_then(|x| s.make(reduction, &[x])))
        },
        example: "fn @f(%0: f32[A:2, B:2], %1: f32[A:3, B:2]) {
            %2 = all_reduce(%0) {\"axes\":[\"y\"],\"ranks\":3} : f32[A:2, B:2]
            %3 = all_reduce(%1) {\"axes\":[\"y\"],\"ranks\":3} : f32[A:3, B:2]
            %4 = concat(%2, %3) {\"dim\":\"A\"} : f32[A:5, B:2]
            return %4 }",
    },
    Rule {
        name: "sum before it travels",
        law: "sum over A of all_reduce(x) = all_reduce(sum over A of x)",
        of: Of::Op("reduce_sum"),
        apply: inside_all_reduce,
        example: "fn @f(%0: f32[A:3, B:2]) {
            %1 = all_reduce(%0) {\"axes\":[\"x\"],\"ranks\":2} : f32[A:3, B:2]
            %2 = reduce_sum(%1) {\"dims\":[\"A\"]} : f32[B:2]
            return %2 }",
    },
    Rule {
        name: "sum before it is scattered",
        law: "sum over A of reduce_scatter(x) = reduce_scatter(sum over A of x), for rows of tokens",
        of: Of::Op("reduce_sum"),
        apply: |s| {
            let op = s.op.clone();
            if !s.ty_of(s.arg(0)).is_some_and(|many| are_rows(&s.ty.dims, &many.dims)) {
                return vec![];
            }
            let scattered = s.inside(s.arg(0), |op| matches!(op, Op::ReduceScatter(_)).then(|| op.clone()));
            let mut out = vec![];
            for (scatter, x) in scattered {
                out.extend(s.make(op.clone(), &x).and_then(|x| s.make(scatter, &[x])));
            }
            out
        },
        example: "fn @f(%0: f32[N:2, B:1, S:2, A:3, D:2]) {
            %1 = reduce_scatter(%0) {\"axes\":[\"x\"]} : f32[B:1, S:2, A:3, D:2]
            %2 = reduce_sum(%1) {\"dims\":[\"A\"]} : f32[B:1, S:2, D:2]
            return %2 }",
    },
    Rule {
        name: "broadcast after it travelled",
        law: "all_gather(broadcast(x)) = broadcast(all_gather(x)), for rows of tokens",
        of: Of::Op("all_gather"),
        apply: |s| {
            let (gather, dims) = (s.op.clone(), s.ty.dims.to_vec());
            let small = s.inside(s.arg(0), |op| matches!(op, Op::Broadcast(_)).then_some(()));
            let mut out = vec![];
            let many = s.ty_of(s.arg(0)).map(|t| t.dims.to_vec()).unwrap_or_default();
            for (_, x) in small {
                if !s.ty_of(x[0]).is_some_and(|few| are_rows(&few.dims, &many)) {
                    continue;
                }
                let all = s.make(gather.clone(), &x);
                out.extend(all.and_then(|all| s.make(Broadcast { dims: dims.clone() }, &[all])));
            }
            out
        },
        example: "fn @f(%0: f32[B:1, S:2, D:2]) {
            %1 = broadcast(%0) {\"dims\":[{\"name\":\"B\",\"size\":1},{\"name\":\"S\",\"size\":2},{\"name\":\"A\",\"size\":3},{\"name\":\"D\",\"size\":2}]} : f32[B:1, S:2, A:3, D:2]
            %2 = all_gather(%1) {\"axes\":[\"x\"],\"dim\":{\"name\":\"R\",\"size\":2}} : f32[R:2, B:1, S:2, A:3, D:2]
            return %2 }",
    },
    Rule {
        name: "slice before it travels",
        law: "slice(all_reduce(x)) = all_reduce(slice(x))",
        of: Of::Op("slice"),
        apply: inside_all_reduce,
        example: "fn @f(%0: f32[A:4]) {
            %1 = all_reduce(%0) {\"axes\":[\"x\"],\"max\":true,\"ranks\":2} : f32[A:4]
            %2 = slice(%1) {\"dim\":\"A\",\"start\":1,\"size\":2} : f32[A:2]
            return %2 }",
    },
    Rule {
        name: "order before it travels",
        law: "transpose(all_reduce(x)) = all_reduce(transpose(x))",
        of: Of::Op("transpose"),
        apply: inside_all_reduce,
        example: "fn @f(%0: f32[A:3, B:2]) {
            %1 = all_reduce(%0) {\"axes\":[\"x\"],\"ranks\":2} : f32[A:3, B:2]
            %2 = transpose(%1) {\"order\":[\"B\",\"A\"]} : f32[B:2, A:3]
            return %2 }",
    },
    Rule {
        name: "view before it travels",
        law: "reshape(all_reduce(x)) = all_reduce(reshape(x)), and so for reduce_scatter",
        of: Of::Op("reshape"),
        apply: |s| {
            let dims = s.ty.dims.to_vec();
            let Some((reduction, x)) = reduction(s, s.arg(0)) else { return vec![] };
            found(laid_out(s, &reduction, x, &dims, &dims).and_then(|x| s.make(reduction, &[x])))
        },
        example: "fn @f(%0: f32[N:3, A:4]) {
            %1 = reduce_scatter(%0) {\"axes\":[\"y\"]} : f32[A:4]
            %2 = reshape(%1) {\"dims\":[{\"name\":\"N\",\"size\":2},{\"name\":\"C\",\"size\":2}]} : f32[N:2, C:2]
            return %2 }",
    },
    Rule {
        name: "gathered sums",
        law: "all_gather(reduce_scatter(x)) = all_reduce(x)",
        of: Of::Op("all_gather"),
        apply: |s| {
            let Op::AllGather(gather) = s.op else { return vec![] };
            let AllGather { axes, dim, why } = gather.clone();
            let scattered = s.inside(s.arg(0), |op| matches!(op, Op::ReduceScatter(r) if r.axes == axes).then_some(()));
            let reduce = AllReduce { axes, max: false, ranks: dim.size, why };
            let mut all = scattered.into_iter().filter_map(|(_, x)| s.make(reduce.clone(), &x)).collect::<Vec<_>>();
            all.iter_mut().for_each(|x| *x = s.renamed(*x).unwrap_or(*x));
            all
        },
        example: "fn @f(%0: f32[N:2, A:4]) {
            %1 = reduce_scatter(%0) {\"axes\":[\"x\"]} : f32[A:4]
            %2 = all_gather(%1) {\"axes\":[\"x\"],\"dim\":{\"name\":\"R\",\"size\":2}} : f32[R:2, A:4]
            return %2 }",
    },
    Rule {
        name: "a part of a sum",
        law: "a rank's part of all_reduce(x) = reduce_scatter(x)",
        of: Of::Op("window"),
        apply: |s| {
            let Op::Window(window) = s.op else { return vec![] };
            let window: Window = window.clone();
            let sums = s.inside(s.arg(0), |op| match op {
                Op::AllReduce(r) if !r.max => Some(r.clone()),
                _ => None,
            });
            let mut out = vec![];
            for (reduce, x) in sums {
                if let Some(pieces) = own_part(s, &window, &reduce.axes, reduce.ranks)
                    && let Some(pieces) = in_pieces(s, x[0], &window.dim, pieces)
                {
                    out.extend(s.make(ReduceScatter { axes: reduce.axes, why: reduce.why }, &[pieces]));
                }
            }
            out
        },
        example: "fn @f(%0: f32[A:2, B:6]) {
            %1 = all_reduce(%0) {\"axes\":[\"y\"],\"ranks\":3} : f32[A:2, B:6]
            %2 = coordinate() {\"axis\":\"y\"} : i64[]
            %3 = constant() {\"value\":2.0,\"dtype\":\"i64\"} : i64[]
            %4 = mul(%2, %3) : i64[]
            %5 = window(%1, %4) {\"dim\":\"B\",\"size\":2} : f32[A:2, B:2]
            return %5 }",
    },
    Rule {
        name: "a part of what was gathered",
        law: "a rank's part of all_gather(x) = x",
        of: Of::Op("window"),
        apply: |s| {
            let Op::Window(window) = s.op else { return vec![] };
            let window: Window = window.clone();
            let mut out = vec![];
            for (gather, x) in gathers(s, s.arg(0)) {
                if s.fits(x)
                    && own_part(s, &window, &gather.axes, gather.dim.size).is_some()
                    && joined(s, gather, x, &window.dim).is_some_and(|whole| s.equal(whole, s.arg(0)))
                {
                    out.push(x);
                }
            }
            out
        },
        example: "fn @f(%0: f32[A:2, B:2]) {
            %1 = all_gather(%0) {\"axes\":[\"y\"],\"dim\":{\"name\":\"R\",\"size\":3}} : f32[R:3, A:2, B:2]
            %2 = transpose(%1) {\"order\":[\"A\",\"R\",\"B\"]} : f32[A:2, R:3, B:2]
            %3 = reshape(%2) {\"dims\":[{\"name\":\"A\",\"size\":2},{\"name\":\"B\",\"size\":6}]} : f32[A:2, B:6]
            %4 = coordinate() {\"axis\":\"y\"} : i64[]
            %5 = constant() {\"value\":2.0,\"dtype\":\"i64\"} : i64[]
            %6 = mul(%4, %5) : i64[]
            %7 = window(%3, %6) {\"dim\":\"B\",\"size\":2} : f32[A:2, B:2]
            return %7 }",
    },
    Rule {
        name: "there and back",
        law: "all_to_all(all_to_all(x)) = x, among the same ranks",
        of: Of::Op("all_to_all"),
        apply: |s| {
            let Op::AllToAll(AllToAll { axes, .. }) = s.op else { return vec![] };
            let axes = axes.clone();
            let inner = s.inside(s.arg(0), |op| matches!(op, Op::AllToAll(a) if a.axes == axes).then_some(()));
            inner.into_iter().map(|(_, x)| x[0]).collect()
        },
        example: "fn @f(%0: f32[N:2, A:3]) {
            %1 = all_to_all(%0) {\"axes\":[\"x\"]} : f32[N:2, A:3]
            %2 = all_to_all(%1) {\"axes\":[\"x\"]} : f32[N:2, A:3]
            return %2 }",
    },
    Rule {
        name: "narrow before it travels",
        law: "cast(all_gather(x)) = all_gather(cast(x)), if the cast narrows, and so for all_to_all",
        of: Of::Op("cast"),
        apply: |s| {
            let to = s.ty.dtype;
            if s.ty_of(s.arg(0)).is_none_or(|t| t.dtype.bytes() <= to.bytes()) {
                return vec![];
            }
            let moves = through(s, s.arg(0), |op| matches!(op, Op::AllGather(_) | Op::AllToAll(_)).then(|| op.clone()));
            let mut out = vec![];
            for (travel, x, views) in moves {
                let narrow = s.make(Cast { to }, &[x]).and_then(|x| s.make(travel, &[x]));
                out.extend(narrow.and_then(|x| again(s, x, &views)));
            }
            out
        },
        example: "fn @f(%0: f32[A:3]) {
            %1 = all_gather(%0) {\"axes\":[\"x\"],\"dim\":{\"name\":\"R\",\"size\":2}} : f32[R:2, A:3]
            %2 = reshape(%1) {\"dims\":[{\"name\":\"A\",\"size\":6}]} : f32[A:6]
            %3 = cast(%2) {\"to\":\"bf16\"} : bf16[A:6]
            return %3 }",
    },
    Rule {
        name: "widen after it travelled",
        law: "all_gather(cast(x)) = cast(all_gather(x)), if the cast widens",
        of: Of::Op("all_gather"),
        apply: widened,
        example: "fn @f(%0: bf16[A:3]) {
            %1 = cast(%0) {\"to\":\"f32\"} : f32[A:3]
            %2 = all_gather(%1) {\"axes\":[\"x\"],\"dim\":{\"name\":\"R\",\"size\":2}} : f32[R:2, A:3]
            return %2 }",
    },
    Rule {
        name: "widen after it was exchanged",
        law: "all_to_all(cast(x)) = cast(all_to_all(x)), if the cast widens",
        of: Of::Op("all_to_all"),
        apply: widened,
        example: "fn @f(%0: bf16[A:4]) {
            %1 = cast(%0) {\"to\":\"f32\"} : f32[A:4]
            %2 = reshape(%1) {\"dims\":[{\"name\":\"R\",\"size\":2},{\"name\":\"B\",\"size\":2}]} : f32[R:2, B:2]
            %3 = all_to_all(%2) {\"axes\":[\"x\"]} : f32[R:2, B:2]
            return %3 }",
    },
];

/// Whether one of two values has rows, and the other several for each of them, before their channels: as many as a token has
/// experts. Ranks hold parts of tokens or of channels, so they have all that belongs to one.
fn are_rows(few: &[Dim], many: &[Dim]) -> bool {
    let at = few.len().saturating_sub(1);
    few.len() >= 3 && many.len() == few.len() + 1 && few[..at] == many[..at] && few[at] == many[at + 1]
}

/// More terms than most sums of a model have. Those of a longer one are found in a few rounds: what travels together by then
/// is one term.
const MAX_TERMS: usize = 256;

/// The terms of a sum: of those that are sums over ranks, how, and of what. None if no sum over ranks is among them.
fn terms(s: &Site<'_>) -> Vec<(Option<Op>, Id)> {
    if !s.args().iter().all(|&a| s.fits(a)) || !s.args().iter().any(|&a| s.has_sums(a)) {
        return vec![];
    }
    let mut out = vec![];
    // Sums that the next class is a part of; what is left to look at, and where such a sum ends.
    let mut above: HashSet<Id> = HashSet::new();
    let mut left: Vec<Walk> = s.args().into_iter().rev().map(Walk::Into).collect();
    while let Some(next) = left.pop() {
        let id = match next {
            Walk::Into(id) => s.graph.find(id),
            Walk::OutOf(id) => {
                above.remove(&id);
                continue;
            }
        };
        if let Some((reduction, x)) = reduction(s, id) {
            out.push((Some(reduction), x));
        } else {
            above.insert(id);
            match parts(s, id, &above) {
                Some(args) => {
                    left.push(Walk::OutOf(id));
                    left.extend(args.into_iter().rev().map(Walk::Into));
                }
                None => {
                    out.push((None, id));
                    above.remove(&id);
                }
            }
        }
        if out.len() >= MAX_TERMS {
            return vec![];
        }
    }
    out
}

enum Walk {
    Into(Id),
    OutOf(Id),
}

/// What a class is the sum of, or the view of a sum; nothing that it is a part of itself.
fn parts(s: &Site<'_>, id: Id, above: &HashSet<Id>) -> Option<Vec<Id>> {
    let is_new = |a: &Id| !above.contains(&s.graph.find(*a));
    let sums = s.inside(id, |op| matches!(op, Op::Add(_)).then_some(()));
    let mut whole = sums.into_iter().filter(|(_, args)| args.iter().all(|a| s.ty_of(*a) == s.ty_of(id) && is_new(a)));
    let views = s.inside(id, |op| matches!(op, Op::Reshape(_)).then_some(()));
    let is_sum =
        |a: &Id| reduction(s, *a).is_some() || !s.inside(*a, |op| matches!(op, Op::Add(_)).then_some(())).is_empty();
    let mut viewed = views.into_iter().filter(|(_, args)| args.iter().all(|a| is_new(a) && is_sum(a)));
    whole.next().or_else(|| viewed.next()).map(|(_, args)| args)
}

/// How class `id` is a sum over ranks, and of what.
fn reduction(s: &Site<'_>, id: Id) -> Option<(Op, Id)> {
    let sums = s.inside(id, |op| match op {
        Op::AllReduce(AllReduce { max: false, .. }) | Op::ReduceScatter(_) => Some(op.clone()),
        _ => None,
    });
    sums.into_iter().next().map(|(op, x)| (op, x[0]))
}

/// The same sum over the same ranks, for whatever reason.
fn alike(a: Option<&Op>, b: Option<&Op>) -> bool {
    match (a, b) {
        (Some(Op::AllReduce(a)), Some(Op::AllReduce(b))) => a.axes == b.axes && a.max == b.max,
        (Some(Op::ReduceScatter(a)), Some(Op::ReduceScatter(b))) => a.axes == b.axes,
        _ => false,
    }
}

/// What `reduction` takes to give a view of its result with `dims`; the dim of pieces has a name that `taken` lacks.
fn laid_out(s: &mut Site<'_>, reduction: &Op, x: Id, dims: &[Dim], taken: &[Dim]) -> Option<Id> {
    let pieces = match reduction {
        Op::ReduceScatter(_) => s.ty_of(x)?.dims.first().map(|first| pieces(first.size, taken)),
        _ => None,
    };
    s.viewed(x, pieces.into_iter().chain(dims.iter().cloned()).collect())
}

fn pieces(count: usize, taken: &[Dim]) -> Dim {
    let mut name = String::from("RANKS");
    while taken.iter().any(|d| d.name == name.as_str()) {
        name.push('_');
    }
    Dim { name: name.into(), size: count }
}

/// The sum of `xs`, reduced if it is to be, with `dims`.
fn reduced(s: &mut Site<'_>, reduction: Option<&Op>, xs: &[Id], dims: &[Dim]) -> Option<Id> {
    let Some(reduction) = reduction else { return s.viewed(xs[0], dims.to_vec()) };
    let xs: Option<Vec<Id>> = xs.iter().map(|&x| laid_out(s, reduction, x, dims, dims)).collect();
    let all = sum(s, &xs?)?;
    s.make(reduction.clone(), &[all])
}

fn sum(s: &mut Site<'_>, xs: &[Id]) -> Option<Id> {
    let (&first, rest) = xs.split_first()?;
    rest.iter().try_fold(first, |sum, &x| s.make(Add {}, &[sum, x]))
}

/// f(all_reduce(x)) as all_reduce(f(x)).
fn inside_all_reduce(s: &mut Site<'_>) -> Vec<Id> {
    let adds = matches!(s.op, Op::ReduceSum(_));
    let reductions = s.inside(s.arg(0), |op| match op {
        Op::AllReduce(r) if !(r.max && adds) => Some(r.clone()),
        _ => None,
    });
    let op = s.op.clone();
    let first = reductions.into_iter().next();
    found(first.and_then(|(reduce, x)| s.make(op, &x).and_then(|x| s.make(reduce, &[x]))))
}

/// Into how many pieces the dim of a window falls, if the window is this rank's piece of those along one axis.
fn own_part(s: &mut Site<'_>, window: &Window, axes: &[Name], ranks: usize) -> Option<usize> {
    let [axis] = axes else { return None };
    let at = s.make(Coordinate { axis: axis.clone() }, &[])?;
    let size = s.make(Constant { value: window.size as f64, dtype: DType::I64 }, &[])?;
    let start = s.make(Mul {}, &[at, size])?;
    let whole = s.ty_of(s.arg(0))?.size_of(&window.dim)?;
    (s.equal(start, s.arg(1)) && whole == window.size * ranks).then_some(ranks)
}

/// The equal pieces of a dim along a new first dim.
fn in_pieces(s: &mut Site<'_>, x: Id, dim: &Name, count: usize) -> Option<Id> {
    let mut dims = s.ty_of(x)?.dims.to_vec();
    let at = dims.iter().position(|d| d.name == *dim)?;
    let first = pieces(count, &dims);
    dims[at].size /= count;
    dims.insert(at, first.clone());
    let split = s.viewed(x, dims.clone())?;
    let rest = dims.into_iter().filter(|d| *d != first).map(|d| d.name);
    s.make(Transpose { order: std::iter::once(first.name.clone()).chain(rest).collect() }, &[split])
}

/// Dim `dim` whole, from the parts that `gather` brings together.
fn joined(s: &mut Site<'_>, gather: AllGather, x: Id, dim: &Name) -> Option<Id> {
    let first = gather.dim.clone();
    let all = s.make(gather, &[x])?;
    let mut dims = s.ty_of(x)?.dims.to_vec();
    let at = dims.iter().position(|d| d.name == *dim)?;
    let mut order: Vec<Name> = dims.iter().map(|d| d.name.clone()).collect();
    order.insert(at, first.name);
    let all = s.make(Transpose { order }, &[all])?;
    dims[at].size *= first.size;
    s.viewed(all, dims)
}

/// Views and orders of one value, the outermost first.
type Views = Vec<Op>;

/// What `f` accepts below class `id` and the views of it, with its operand.
fn through<T>(s: &Site<'_>, id: Id, f: impl Fn(&Op) -> Option<T> + Copy) -> Vec<(T, Id, Views)> {
    const DEPTH: usize = 4;
    let mut out = vec![];
    let mut at = vec![(id, Views::new())];
    while let Some((id, views)) = at.pop() {
        out.extend(s.inside(id, f).into_iter().map(|(t, x)| (t, x[0], views.clone())));
        let further = s.inside(id, |op| matches!(op, Op::Reshape(_) | Op::Transpose(_)).then(|| op.clone()));
        if views.len() < DEPTH && out.is_empty() {
            at.extend(further.into_iter().map(|(op, x)| (x[0], [views.as_slice(), &[op]].concat())));
        }
    }
    out
}

/// The same views of `x`.
fn again(s: &mut Site<'_>, x: Id, views: &[Op]) -> Option<Id> {
    views.iter().rev().try_fold(x, |x, view| s.make(view.clone(), &[x]))
}

/// What is gathered below class `id` and the views of it.
fn gathers(s: &Site<'_>, id: Id) -> Vec<(AllGather, Id)> {
    let gather = |op: &Op| if let Op::AllGather(gather) = op { Some(gather.clone()) } else { None };
    through(s, id, gather).into_iter().map(|(gather, x, _)| (gather, x)).collect()
}

/// travel(cast(x)) as cast(travel(x)), where the cast widens.
fn widened(s: &mut Site<'_>) -> Vec<Id> {
    let (travel, to) = (s.op.clone(), s.ty.dtype);
    let casts = through(s, s.arg(0), |op| matches!(op, Op::Cast(_)).then_some(()));
    let mut out = vec![];
    for (_, x, views) in casts {
        if s.ty_of(x).is_some_and(|t| t.dtype.bytes() < to.bytes()) {
            let narrow = again(s, x, &views).and_then(|x| s.make(travel.clone(), &[x]));
            out.extend(narrow.and_then(|x| s.make(Cast { to }, &[x])));
        }
    }
    out
}
