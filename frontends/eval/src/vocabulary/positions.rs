//! Stacks with positions: a module for each of a list of numbers, those of one kind in families.

use std::rc::Rc;

use diag::Diagnostic;

use super::modules::family;
use crate::args::Args;
use crate::evaluator::Evaluator;
use crate::leaves::structure;
use crate::stop::Eval;
use crate::value::{Bound, Run, Slot, Stack, Value, whole};

/// Modules that are made one after another.
const MAX_POSITIONS: usize = 4096;

/// The longest order of kinds that is looked for.
const MAX_PERIOD: usize = 32;

/// `stack_at(indices, |i| Layer::new(i))`.
pub fn stack_at<'a>(ev: &mut Evaluator<'a>, args: &Args<'a>) -> Eval<'a, Value<'a>> {
    args.expect(2, "stack_at(0..12, |i| Layer::new(i))")?;
    let (positions, (make, at_make)) = (positions(args)?, args.get(1)?);
    let mut texts: Vec<String> = vec![];
    let (mut modules, mut kinds) = (vec![], vec![]);
    for &position in &positions {
        let module = ev.invoke(make.clone(), vec![(Value::Int(position as i64), args.span(0))], args.site)?;
        let mut text = String::new();
        if !structure(&module, &mut text) {
            return Err(Diagnostic::error("the modules of a stack hold no closures").at(at_make, "").into());
        }
        let kind = texts.iter().position(|known| *known == text).unwrap_or(texts.len());
        if kind == texts.len() {
            texts.push(text);
        }
        kinds.push(kind);
        modules.push(module);
    }
    let mut start = 0;
    let mut runs = vec![];
    for (period, times) in split(&kinds) {
        let slot = |offset: usize| {
            let positions = (0..times).map(|turn| positions[start + offset + turn * period]).collect();
            Ok(Slot { item: family(&modules[start + offset], times, args)?, positions })
        };
        runs.push(Run { times, slots: (0..period).map(slot).collect::<Eval<'a, _>>()? });
        start += period * times;
    }
    ev.stacks.push(positions.len());
    Ok(Value::Stack(Rc::new(Stack { count: positions.len(), runs, recompute: false, name: None })))
}

/// A range or a list of whole numbers from 0, each greater than the one before.
fn positions<'a>(args: &Args<'a>) -> Eval<'a, Vec<usize>> {
    let (indices, at) = args.get(0)?;
    let wrong = |what: String| {
        Diagnostic::error(what)
            .at(at, "")
            .help("write a range or a list of numbers from 0, each greater than the one before: `0..12`, `[3, 7, 11]`")
    };
    let numbers: Vec<i64> = match &indices {
        Value::Range(range) => {
            let (Some(Bound::Int(start)), Some(Bound::Int(end))) = (range.start, range.end) else {
                return Err(wrong("positions are a range with both ends".into()).into());
            };
            let end = if range.closed { end.saturating_add(1) } else { end };
            // One more than there may be, to be refused below.
            (start..end.min(start.saturating_add(MAX_POSITIONS as i64 + 1))).collect()
        }
        Value::Array(items) => {
            let number = |item: &Value<'a>| whole(item).ok_or_else(|| item.describe());
            let numbers: Result<_, String> = items.iter().map(number).collect();
            numbers.map_err(|other| wrong(format!("a position is a whole number, not {other}")))?
        }
        other => return Err(wrong(format!("positions are a range or a list, not {}", other.describe())).into()),
    };
    if numbers.is_empty() {
        return Err(Diagnostic::error("a stack of no modules").at(at, "at least one").into());
    }
    if numbers.len() > MAX_POSITIONS {
        let what = format!("more than {MAX_POSITIONS} positions");
        return Err(Diagnostic::error(what).at(at, "").help("`stack(N, make)` makes N equal modules at once").into());
    }
    if let Some(pair) = numbers.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(wrong(format!("position {} stands after {}", pair[1], pair[0])).into());
    }
    let number = |n: i64| usize::try_from(n).map_err(|_| wrong(format!("{n} is no position")).into());
    numbers.into_iter().map(number).collect()
}

/// The order of kinds as periods that are repeated, with as few modules in all periods as possible: 0 0 0 1 1 1 1 is a run
/// of 0 and one of 1, and 0 0 0 1 0 0 0 1 is 0 0 0 1 twice.
fn split(kinds: &[usize]) -> Vec<(usize, usize)> {
    let n = kinds.len();
    // By where it begins: modules in all periods from there on, runs, and the first period with its repetitions.
    let mut best = vec![(0, 0, 0, 0); n + 1];
    // By period: how many kinds from there on are those one period later.
    let mut alike = vec![0; MAX_PERIOD + 1];
    for i in (0..n).rev() {
        let mut found: Option<(usize, usize, usize, usize)> = None;
        for period in 1..=MAX_PERIOD.min(n - i) {
            let same = i + period < n && kinds[i] == kinds[i + period];
            alike[period] = if same { alike[period] + 1 } else { 0 };
            let times = 1 + alike[period] / period;
            // What is not repeated is a run of its own.
            if times == 1 && period > 1 {
                continue;
            }
            let (modules, runs, ..) = best[i + period * times];
            let one = (modules + period, runs + 1, period, times);
            if found.is_none_or(|before| (one.0, one.1) < (before.0, before.1)) {
                found = Some(one);
            }
        }
        best[i] = found.unwrap_or_default();
    }
    let (mut at, mut out) = (0, vec![]);
    while at < n {
        let (_, _, period, times) = best[at];
        out.push((period, times));
        at += period * times;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_of_kinds_are_periods() {
        let check = |kinds: &str, expect: &[(usize, usize)]| {
            let kinds: Vec<usize> = kinds.bytes().map(usize::from).collect();
            assert_eq!(split(&kinds), expect);
        };
        check("aaaa", &[(1, 4)]);
        check("dssss", &[(1, 1), (1, 4)]);
        check(&"wwwf".repeat(10), &[(4, 10)]);
        check(&("wwwwwwwf".repeat(4)), &[(8, 4)]);
        check(&("wwwwwf".repeat(4) + "ww"), &[(6, 4), (1, 2)]);
        check("dddabababab", &[(1, 3), (2, 4)]);
        check("abc", &[(1, 1), (1, 1), (1, 1)]);
        check("", &[]);
    }
}
