//! Attention and its gradient, whole and through windows, against the interpreter.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod check;
mod load;

use check::{check_sets, interpret, kernel, random, results, ty};
use ir::{Array, ops};
use load::Numbers;
use types::{DType, TensorType};

#[derive(Clone, Copy, Debug)]
struct Case {
    dtype: DType,
    queries: usize,
    keys: usize,
    heads: usize,
    kv_heads: usize,
    head: usize,
    causal: bool,
    heads_first: bool,
    /// Queries and keys have one name.
    same_name: bool,
}

impl Case {
    fn forward(&self) -> ops::Attention {
        ops::Attention {
            q_len: "L".into(),
            kv_len: if self.same_name { "L".into() } else { "S".into() },
            heads: "H".into(),
            kv_heads: "G".into(),
            head: "D".into(),
            causal: self.causal,
            scale: 0.3,
            visibility: ops::Visibility::default(),
            bias: None,
        }
    }

    fn backward(&self) -> ops::AttentionGrad {
        ops::AttentionGrad::of(&self.forward())
    }

    fn types(&self) -> [TensorType; 2] {
        let forward = self.forward();
        let shape = |length: &str, l: usize, name: &str, h: usize| {
            let (dtype, head) = (self.dtype, self.head);
            ty(&match self.heads_first {
                false => format!("{dtype}[B:2, {length}:{l}, {name}:{h}, D:{head}]"),
                true => format!("{dtype}[B:2, {name}:{h}, {length}:{l}, D:{head}]"),
            })
        };
        [shape("L", self.queries, "H", self.heads), shape(&forward.kv_len, self.keys, "G", self.kv_heads)]
    }
}

/// Sets `x` to `value` from position `from` on along `dim`.
fn fill_from(x: &mut Array, dim: &str, from: usize, value: f64) {
    let place = x.ty.position(dim).unwrap();
    let (stride, size) = (x.ty.strides()[place], x.ty.dims[place].size);
    for (i, at) in x.data.iter_mut().enumerate() {
        if i / stride % size >= from {
            *at = value;
        }
    }
}

/// Forward, then the gradient from what the interpreter made forward. A window is (reach, number of keys); keys that
/// are not there are NaN. Without windows the operator has none.
fn check_case(case: &Case, windows: &[(i64, i64)]) {
    let [q, kv] = case.types();
    let windowed = !windows.is_empty();
    let scalars = |window: &(i64, i64)| [window.0, window.1].map(|x| Array::new(ty("i64[]"), vec![x as f64]));
    let forward = |window: Option<&(i64, i64)>| {
        let mut all: Vec<Array> = [(&q, 3), (&kv, 4), (&kv, 5)].map(|(ty, seed)| random(ty, seed, 1.0)).to_vec();
        if let Some(window) = window {
            for x in &mut all[1..] {
                fill_from(x, &case.forward().kv_len, window.1.max(0) as usize, f64::NAN);
            }
            all.extend(scalars(window));
        }
        all
    };
    let sets: Vec<Vec<Array>> =
        if windowed { windows.iter().map(|w| forward(Some(w))).collect() } else { vec![forward(None)] };
    let text = |arrays: &[Array]| arrays.iter().map(|x| x.ty.to_string()).collect::<Vec<_>>();
    let texts = text(&sets[0]);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let name = format!("{case:?} {windows:?}");
    let build = |b: &mut ir::Builder, p: &[ir::NodeId]| {
        let both = b.op(case.forward(), p);
        b.results(both).to_vec()
    };
    check_sets(&name, &texts, &sets, 4.0, build);

    let function = kernel(&texts, build);
    let gradients = |(i, set): (usize, &Vec<Array>)| {
        let made = interpret(&function, set);
        let mut all = set[..3].to_vec();
        all.extend([made[0].clone(), made[1].clone(), random(&q, 11, 1.0)]);
        // Queries that are not there are zeros, and so is all that belongs to them.
        if windowed && i % 2 == 1 {
            for x in [0, 3, 4, 5] {
                fill_from(&mut all[x], "L", case.queries.div_ceil(2), 0.0);
            }
        }
        // Where the rest of a longer attention sees keys, its log-sum-exp is a number.
        if i % 3 == 1 {
            for x in &mut all[4].data {
                *x = x.max(-1.0);
            }
        }
        all.extend(set[3..].iter().cloned());
        all
    };
    let sets: Vec<Vec<Array>> = sets.iter().enumerate().map(gradients).collect();
    let texts = text(&sets[0]);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    check_sets(&format!("gradient of {name}"), &texts, &sets, 30.0, |b, p| {
        let all = b.op(case.backward(), p);
        b.results(all).to_vec()
    });
}

#[test]
fn whole() {
    let case = |dtype, queries, keys, heads, kv_heads, head, causal, heads_first| Case {
        dtype,
        queries,
        keys,
        heads,
        kv_heads,
        head,
        causal,
        heads_first,
        same_name: false,
    };
    for dtype in [DType::F32, DType::BF16] {
        for causal in [false, true] {
            check_case(&case(dtype, 5, 5, 2, 2, 8, causal, false), &[]);
            check_case(&case(dtype, 37, 70, 2, 1, 20, causal, false), &[]);
            check_case(&case(dtype, 1, 33, 4, 2, 16, causal, true), &[]);
            check_case(&case(dtype, 130, 131, 2, 2, 33, causal, true), &[]);
        }
    }
}

/// Few heads, so that tasks of the gradient are of keys or of queries, and queries enough for several blocks.
#[test]
fn blocks_of_queries() {
    for (dtype, causal) in [(DType::F32, true), (DType::F32, false), (DType::BF16, true)] {
        let case = Case {
            dtype,
            queries: 1160,
            keys: 1200,
            heads: 2,
            kv_heads: 1,
            head: 5,
            causal,
            heads_first: false,
            same_name: false,
        };
        check_case(&case, &[]);
    }
}

/// Heads enough that a task of the gradient has all of one, and heads so few that it has not; more queries and keys than a
/// task has.
#[test]
fn odd_shapes() {
    let mut numbers = Numbers(17);
    let mut draw = |low: usize, high: usize| {
        let unit = (f64::from(numbers.next()) + 1.0) / 2.0;
        low + (unit * (high - low + 1) as f64) as usize
    };
    for i in 0..12 {
        let (kv_heads, queries) = (draw(1, 4), draw(1, 70));
        let case = Case {
            dtype: [DType::F32, DType::BF16][i % 2],
            queries: if i == 3 { 530 } else { queries },
            keys: if i == 4 { 530 } else { draw(queries, 140) },
            heads: kv_heads * draw(1, 4),
            kv_heads,
            head: draw(1, 70),
            causal: i % 4 > 1 && i != 3,
            heads_first: draw(0, 1) == 1,
            same_name: false,
        };
        check_case(&case, &[]);
    }
}

#[test]
fn windows_of_any_place() {
    let mut numbers = Numbers(41);
    let mut draw = |low: i64, high: i64| {
        let unit = (f64::from(numbers.next()) + 1.0) / 2.0;
        low + (unit * (high - low + 1) as f64) as i64
    };
    for i in 0..16 {
        let (queries, keys) = (draw(1, 70), draw(1, 70));
        let kv_heads = draw(1, 2) as usize;
        let case = Case {
            dtype: [DType::F32, DType::BF16][i % 2],
            queries: queries as usize,
            keys: keys as usize,
            heads: kv_heads * draw(1, 3) as usize,
            kv_heads,
            head: draw(1, 40) as usize,
            causal: i % 4 < 3,
            heads_first: draw(0, 1) == 1,
            same_name: draw(0, 1) == 1,
        };
        let mut windows = vec![
            (keys - queries, keys),
            // Nothing is seen: by reach, and because there are no keys.
            (-queries, keys),
            (0, 0),
            // Numbers far outside.
            (i64::from(i32::MAX) * 4, i64::from(i32::MAX) * 4),
            (-i64::from(i32::MAX) * 4, keys),
        ];
        windows.extend((0..7).map(|_| (draw(-queries, keys), draw(1, keys))));
        check_case(&case, &windows);
    }
}

/// Longer than a tile in both directions, so that whole tiles are hidden.
#[test]
fn windows_over_many_tiles() {
    for dtype in [DType::F32, DType::BF16] {
        let case = Case {
            dtype,
            queries: 150,
            keys: 210,
            heads: 2,
            kv_heads: 1,
            head: 16,
            causal: true,
            heads_first: false,
            same_name: true,
        };
        let windows = [(60, 210), (-70, 210), (0, 65), (-149, 64), (209, 128), (5, 3)];
        check_case(&case, &windows);
        check_case(&Case { causal: false, ..case }, &windows);
    }
}

/// A window may be known when the kernel is made, or computed inside of it.
#[test]
fn windows_of_constants() {
    check::check("constants", &["f32[L:20, H:2, D:8]", "f32[S:30, H:2, D:8]", "i64[]"], |b, p| {
        let reach = b.constant(4.0, DType::I64);
        let length = b.offset(p[2], 20.0);
        let attention = ops::Attention {
            q_len: "L".into(),
            kv_len: "S".into(),
            heads: "H".into(),
            kv_heads: "H".into(),
            head: "D".into(),
            causal: true,
            scale: 0.5,
            visibility: ops::Visibility::default(),
            bias: None,
        };
        let both = b.op(attention, &[p[0], p[1], p[1], reach, length]);
        b.results(both).to_vec()
    });
}

/// Numbers of `count` samples side by side, each of another length, and positions within them; what is left is padding.
fn packed(length: usize, count: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut segments, mut positions) = (vec![0.0; length], vec![0.0; length]);
    let mut at = 0;
    for sample in 0..count {
        let size = (length / count).saturating_sub(7 * (sample % 3)).max(1);
        for i in 0..size.min(length - at) {
            (segments[at + i], positions[at + i]) = ((sample + 1) as f64, i as f64);
        }
        at = (at + size).min(length);
    }
    (segments, positions)
}

/// Forward and backward by numbers, against the interpreter: packed samples, random numbers, and no sample at all.
fn check_visibility(case: &Case, visibility: &ops::Visibility) {
    let [q, kv] = case.types();
    let forward = ops::Attention { visibility: visibility.clone(), ..case.forward() };
    let numbers = |set: usize, length: usize, name: &str, seed: u64| {
        let of_batch = |values: Vec<f64>| {
            let shifted = values.iter().rev().copied();
            Array::new(ty(&format!("i64[B:2, {name}:{length}]")), values.iter().copied().chain(shifted).collect())
        };
        let (segments, positions) = packed(length, 3);
        match set {
            0 => [of_batch(segments), of_batch(positions)],
            1 => {
                let random = |seed, most| random(&ty(&format!("i64[B:2, {name}:{length}]")), seed, most);
                [random(seed, 3.0), random(seed + 1, 40.0)]
            }
            _ => [of_batch(vec![0.0; length]), of_batch(positions)],
        }
    };
    let set = |set: usize| {
        let mut all: Vec<Array> = [(&q, 3), (&kv, 4), (&kv, 5)].map(|(ty, seed)| random(ty, seed, 1.0)).to_vec();
        let of_q = numbers(set, case.queries, &forward.q_len, 21);
        let of_k = numbers(set, case.keys, &forward.kv_len, 31);
        let pairs = of_q.into_iter().zip(of_k).zip([visibility.segments, visibility.positions]);
        all.extend(pairs.filter(|(_, there)| *there).flat_map(|((q, k), _)| [q, k]));
        all
    };
    let sets: Vec<Vec<Array>> = (0..3).map(set).collect();
    let text = |arrays: &[Array]| arrays.iter().map(|x| x.ty.to_string()).collect::<Vec<_>>();
    let texts = text(&sets[0]);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let name = format!("{case:?} {visibility:?}");
    let build = |b: &mut ir::Builder, p: &[ir::NodeId]| {
        let both = b.op(forward.clone(), p);
        b.results(both).to_vec()
    };
    check_sets(&name, &texts, &sets, 4.0, build);
    let function = kernel(&texts, build);
    let backward: Vec<Vec<Array>> = sets
        .iter()
        .map(|set| {
            let made = interpret(&function, set);
            let own = [made[0].clone(), made[1].clone(), random(&q, 11, 1.0)];
            [&set[..3], &own, &set[3..]].concat()
        })
        .collect();
    let texts = text(&backward[0]);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    check_sets(&format!("gradient of {name}"), &texts, &backward, 8.0, |b, p| {
        let all = b.op(ops::AttentionGrad::of(&forward), p);
        b.results(all).to_vec()
    });
}

#[test]
fn queries_see_keys_by_their_numbers() {
    let seen = |segments, positions, left, right| ops::Visibility { segments, positions, left, right };
    let case = |dtype, queries, keys, heads, kv_heads, head, causal, heads_first| Case {
        dtype,
        queries,
        keys,
        heads,
        kv_heads,
        head,
        causal,
        heads_first,
        same_name: queries == keys,
    };
    for dtype in [DType::F32, DType::BF16] {
        check_visibility(&case(dtype, 300, 300, 2, 2, 32, false, false), &seen(true, false, None, None));
        check_visibility(&case(dtype, 150, 210, 4, 2, 24, true, true), &seen(true, true, None, None));
        check_visibility(&case(dtype, 210, 150, 2, 1, 64, false, false), &seen(true, true, Some(9), Some(3)));
    }
    check_visibility(&case(DType::F32, 280, 280, 1, 1, 16, true, false), &seen(false, false, Some(20), None));
    check_visibility(&case(DType::F32, 9, 5, 8, 2, 16, false, true), &seen(false, true, Some(4), Some(0)));
}

/// What stands in one sample, or in the padding, changes no bit of another's results and gradients.
#[test]
fn samples_side_by_side_do_not_know_each_other() {
    let (segments, _) = packed(160, 3);
    let first: Vec<usize> = (0..160).filter(|&i| segments[i] == 1.0).collect();
    assert!(first.len() > 20 && first.len() < 80);
    for (dtype, causal) in [("f32", false), ("f32", true), ("bf16", false)] {
        let q = format!("{dtype}[L:160, H:2, D:32]");
        let visibility = ops::Visibility { segments: true, ..ops::Visibility::default() };
        let forward = ops::Attention {
            q_len: "L".into(),
            kv_len: "L".into(),
            heads: "H".into(),
            kv_heads: "H".into(),
            head: "D".into(),
            causal,
            scale: 0.2,
            visibility,
            bias: None,
        };
        let params = [&q, &q, &q, &q, "i64[L:160]"].map(String::from);
        let params: Vec<&str> = params.iter().map(String::as_str).collect();
        let function = kernel(&params, |b, p| {
            let both = b.op(forward.clone(), &[p[0], p[1], p[2], p[4], p[4]]);
            b.results(both).to_vec()
        });
        let texts: Vec<&str> = params.iter().take(4).copied().collect();
        let lse = "f32[L:160, H:2]";
        let gradient = kernel(&[&texts[..], &[texts[0], lse, "i64[L:160]"]].concat(), |b, p| {
            let all = b.op(ops::AttentionGrad::of(&forward), &[p[0], p[1], p[2], p[4], p[5], p[3], p[6], p[6]]);
            b.results(all).to_vec()
        });
        let rounded = |x: f64| ty(&q).dtype.round(x);
        let arrays = |others: f64| {
            let mut all: Vec<Array> = (0..4).map(|i| random(&ty(&q), 3 + i, 1.0)).collect();
            for x in &mut all {
                for (i, x) in x.data.iter_mut().enumerate().filter(|(i, _)| segments[i / 64] != 1.0) {
                    *x = rounded(*x * others + i as f64 % 3.0);
                }
            }
            all.push(Array::new(ty("i64[L:160]"), segments.clone()));
            all
        };
        let made = [1.0, -7.0, f64::NAN, f64::INFINITY].map(|others| {
            let own = arrays(others);
            let made = interpret(&function, &own);
            // The first sample's rows of all are the same numbers; those of the others are their own.
            let backward = [&own[..4], &[made[0].clone(), made[1].clone(), own[4].clone()]].concat();
            [results(&function, &own), results(&gradient, &backward)]
        });
        let [one, others @ ..] = &made;
        for other in others {
            for (one, other) in one.iter().flatten().flatten().zip(other.iter().flatten().flatten()) {
                let row = one.len() / 160;
                for &at in &first {
                    assert!(
                        one[at * row..][..row] == other[at * row..][..row],
                        "{dtype}, causal {causal}: row {at} differs"
                    );
                }
                assert!(one != other, "what was changed shows nowhere");
            }
        }
    }
}

/// What is no number in a sample is none in its own results.
#[test]
fn what_is_no_number_shows_in_its_own_sample() {
    let (segments, _) = packed(160, 3);
    for (dtype, word) in [("f32", 4), ("bf16", 2)] {
        let q = format!("{dtype}[L:160, H:1, D:32]");
        let forward = ops::Attention {
            q_len: "L".into(),
            kv_len: "L".into(),
            heads: "H".into(),
            kv_heads: "H".into(),
            head: "D".into(),
            causal: false,
            scale: 0.2,
            visibility: ops::Visibility { segments: true, ..ops::Visibility::default() },
            bias: None,
        };
        let params = [&q, &q, &q, "i64[L:160]"].map(String::from);
        let params: Vec<&str> = params.iter().map(String::as_str).collect();
        let function = kernel(&params, |b, p| {
            let both = b.op(forward.clone(), &[p[0], p[1], p[2], p[3], p[3]]);
            b.results(both).to_vec()
        });
        for odd in [f64::NAN, f64::INFINITY] {
            let mut all: Vec<Array> = (0..3).map(|i| random(&ty(&q), 3 + i, 1.0)).collect();
            // A key of the second sample; its width of 32 begins there.
            let at = segments.iter().position(|&s| s == 2.0).unwrap() + 5;
            all[2].data[at * 32 + 7] = odd;
            all.push(Array::new(ty("i64[L:160]"), segments.clone()));
            let found = &results(&function, &all)[0][0];
            for (i, &segment) in segments.iter().enumerate() {
                for d in 0..32 {
                    let bytes = &found[(i * 32 + d) * word..][..word];
                    let value = match word {
                        4 => f32::from_le_bytes(bytes.try_into().unwrap()),
                        _ => half::bf16::from_le_bytes(bytes.try_into().unwrap()).to_f32(),
                    };
                    let finite = segment != 2.0 || d != 7;
                    assert_eq!(value.is_finite(), finite, "{dtype}, {odd}: row {i}, {d}: {value}");
                }
            }
        }
    }
}

/// Forward, the gradients and that of the scores with a bias of these dims, against the interpreter.
fn check_bias(case: &Case, (dims, dtype): (&[&str], DType), visibility: &ops::Visibility) {
    let [q, kv] = case.types();
    let key: types::Name = "T".into();
    let forward = ops::Attention {
        visibility: visibility.clone(),
        bias: Some(key.clone()),
        causal: case.causal,
        ..case.forward()
    };
    let size = |name: &str| if name == "T" { case.keys } else { q.size_of(name).unwrap() };
    let of_bias = dims.iter().map(|name| types::Dim::new(*name, size(name)));
    let bias = TensorType::new(dtype, of_bias);
    let mut set: Vec<Array> = [(&q, 3), (&kv, 4), (&kv, 5)].map(|(ty, seed)| random(ty, seed, 1.0)).to_vec();
    // Sums of products of bf16 are as exact as they are small.
    let halved = |mut x: Array| {
        x.data.iter_mut().for_each(|x| *x *= 0.5);
        x
    };
    set = set.into_iter().map(halved).collect();
    let mut added = random(&bias, 17, 1.0);
    // Some numbers hide a key, as masks of floats do.
    added.data.iter_mut().skip(1).step_by(5).for_each(|x| *x = f64::NEG_INFINITY);
    set.push(added);
    if visibility.segments {
        for (length, size) in [("L", case.queries), (forward.kv_len.as_str(), case.keys)] {
            set.push(Array::new(ty(&format!("i64[{length}:{size}]")), packed(size, 2).0));
        }
    }
    let texts: Vec<String> = set.iter().map(|x| x.ty.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let name = format!("{case:?}, {bias}, {visibility:?}");
    let build = |b: &mut ir::Builder, p: &[ir::NodeId]| {
        let both = b.op(forward.clone(), p);
        b.results(both).to_vec()
    };
    check_sets(&name, &texts, std::slice::from_ref(&set), 4.0, build);
    let made = interpret(&kernel(&texts, build), &set);
    let behind = [&set[..3], &[made[0].clone(), made[1].clone(), halved(random(&q, 11, 1.0))], &set[3..]].concat();
    let texts: Vec<String> = behind.iter().map(|x| x.ty.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let sets = std::slice::from_ref(&behind);
    check_sets(&format!("gradient of {name}"), &texts, sets, 30.0, |b, p| {
        let all = b.op(ops::AttentionGrad::of(&forward), p);
        b.results(all).to_vec()
    });
    check_sets(&format!("gradient of scores of {name}"), &texts, sets, 30.0, |b, p| {
        vec![b.op(ops::AttentionBiasGrad::of(&forward, key.clone()), p)]
    });
}

#[test]
fn biases_of_any_shape() {
    let mut numbers = Numbers(29);
    let mut draw = |low: usize, high: usize| {
        let unit = (f64::from(numbers.next()) + 1.0) / 2.0;
        low + (unit * (high - low + 1) as f64) as usize
    };
    let shapes: [&[&str]; 8] = [
        &["H", "L", "T"],
        &["H", "T"],
        &["T"],
        &["B", "L", "T"],
        &["B", "H", "T", "L"],
        &["L", "T", "H"],
        &["T", "L"],
        &["L", "H"],
    ];
    for i in 0..24 {
        let (kv_heads, queries) = (draw(1, 3), draw(1, 70));
        let case = Case {
            dtype: [DType::F32, DType::BF16][i % 2],
            queries,
            keys: draw(queries, 140),
            heads: kv_heads * draw(1, 3),
            kv_heads,
            head: draw(1, 70),
            causal: i % 3 == 1,
            heads_first: draw(0, 1) == 1,
            same_name: false,
        };
        let dtype = [DType::F32, DType::BF16][i / 8 % 2];
        let visibility = ops::Visibility { segments: i % 4 == 3, ..ops::Visibility::default() };
        check_bias(&case, (shapes[i % 8], dtype), &visibility);
    }
    // Few heads and many queries: tasks are of keys or of queries.
    let case = Case {
        dtype: DType::F32,
        queries: 1160,
        keys: 1200,
        heads: 1,
        kv_heads: 1,
        head: 5,
        causal: true,
        heads_first: false,
        same_name: false,
    };
    check_bias(&case, (&["H", "L", "T"], DType::F32), &ops::Visibility::default());
}
