//! Cases of attention, its gradients and all that says who sees whom.

use ir::Semantics;
use ir::ops::*;

use types::{DType, Dim, Name, TensorType};

use super::{Cases, Operand, Values, own, ty};

impl Cases {
    pub(super) fn attentions(&mut self) {
        let (b, l, h, g) = (self.n(), self.n() + 1, self.n(), self.n() + 1);
        let attention = |names: [&str; 4], causal: bool| Attention {
            q_len: names[0].into(),
            kv_len: names[1].into(),
            heads: names[2].into(),
            kv_heads: names[3].into(),
            head: "D".into(),
            causal,
            scale: 0.7,
            visibility: Visibility::default(),
            bias: None,
        };
        let d = ("D", 3);
        let both = [
            (
                attention(["L", "T", "H", "H"], false),
                vec![("B", b), ("L", l), ("H", h), d],
                vec![("B", b), ("T", l + 2), ("H", h), d],
            ),
            (
                attention(["L", "L", "H", "H"], true),
                vec![("B", b), ("L", l), ("H", h), d],
                vec![("B", b), ("L", l), ("H", h), d],
            ),
            (
                attention(["L", "L", "H", "K"], true),
                vec![("B", b), ("L", l), ("H", h * g), d],
                vec![("B", b), ("L", l), ("K", h), d],
            ),
            (attention(["L", "T", "H", "K"], true), vec![("L", l), ("H", 2 * g), d], vec![("K", 2), d, ("T", l + 3)]),
            // Two batch dims, in another order on the two sides, and heads before lengths.
            (
                attention(["L", "T", "H", "K"], false),
                vec![("B", b), ("H", h * g), ("A", 2), ("L", l), d],
                vec![("A", 2), d, ("K", h), ("B", b), ("T", 3)],
            ),
            (attention(["L", "T", "H", "K"], false), vec![("L", l), ("H", h), d], vec![("T", 1), ("K", h), d]),
        ];
        for (op, q, kv) in both {
            let (q, kv) = (self.of(&q), self.of(&kv));
            let rows = q.ty.without(&["D".into()]);
            let lse = Operand {
                ty: rows.with_dtype(if self.float == DType::F64 { DType::F64 } else { DType::F32 }),
                values: Values::Within(1.0, 3.0),
            };
            let grad = AttentionGrad::of(&op);
            let queries = q.ty.size_of("L").unwrap() as i64;
            let keys = kv.ty.size_of(&grad.kv_len).unwrap() as i64;
            let scalar = |values| Operand { ty: ty(DType::I64, &[]), values };
            let window = [scalar(Values::Between(-queries, keys)), scalar(Values::Between(0, keys))];
            let forward = [q.clone(), kv.clone(), kv.clone()];
            let backward = [&forward[..], &[q.clone(), lse, q]].concat();
            self.add(op.clone(), [&forward[..], &window].concat());
            self.add(grad.clone(), [&backward[..], &window].concat());
            if op.q_len == op.kv_len {
                // Through a window, lengths of one name may differ.
                let mut longer = kv.clone();
                let at = longer.ty.position("L").unwrap();
                longer.ty.dims[at].size += 2;
                let mut forward = [&forward[..], &window].concat();
                (forward[1], forward[2]) = (longer.clone(), longer);
                self.add(op.clone(), forward);
            }
            self.visibility(&op, &forward, &backward);
            self.biased(&op, &forward, &backward, &window);
            self.add(op, forward.to_vec());
            self.add(grad, backward);
        }
    }

    /// The same attention by numbers of queries and keys, which have all batch dims, or none.
    fn visibility(&mut self, op: &Attention, forward: &[Operand], backward: &[Operand]) {
        let (q, kv) = (&forward[0].ty, &forward[1].ty);
        let numbers = |of: &TensorType, length: &Name, batch: bool, values: Values| {
            let own = |d: &&Dim| d.name == *length || (batch && ["A", "B"].contains(&d.name.as_str()));
            Operand { ty: TensorType::new(DType::I64, of.dims.iter().filter(own).cloned()), values }
        };
        let seen = |segments: bool, positions: bool, left: Option<u64>, right: Option<u64>| Visibility {
            segments,
            positions,
            left,
            right,
        };
        for (visibility, batch) in [
            (seen(true, false, None, None), true),
            (seen(true, true, Some(2), Some(1)), false),
            (seen(false, true, Some(1), None), true),
            (seen(false, false, Some(1), Some(0)), true),
            (seen(true, false, None, Some(2)), true),
        ] {
            let pair = |values| [numbers(q, &op.q_len, batch, values), numbers(kv, &op.kv_len, !batch, values)];
            let segments = pair(Values::Below(3)).into_iter().filter(|_| visibility.segments);
            let positions = pair(Values::Between(-1, 4)).into_iter().filter(|_| visibility.positions);
            let rest: Vec<Operand> = segments.chain(positions).collect();
            let op = Attention { visibility, ..op.clone() };
            let all = [forward, &rest].concat();
            let fits = op.infer(&all.iter().map(|o| &o.ty).collect::<Vec<_>>()).is_ok();
            // Where queries outnumber keys, positions that count on say nothing.
            assert!(fits || !op.visibility.positions);
            if fits {
                self.add(AttentionGrad::of(&op), [backward, &rest].concat());
                self.add(op, all);
            }
        }
    }

    /// The same attention with a bias of some of the dims of the scores, alone, through a window and with numbers.
    fn biased(&mut self, op: &Attention, forward: &[Operand], backward: &[Operand], window: &[Operand]) {
        let (q, kv) = (forward[0].ty.clone(), &forward[1].ty);
        let keys = Dim::new(if op.kv_len == op.q_len { "KEYS" } else { "T" }, kv.size_of(&op.kv_len).unwrap());
        let of = |names: &[&str]| -> Vec<Dim> {
            let dim = |name: &&str| if *name == "KEYS" { Some(keys.clone()) } else { own(&q, name) };
            names.iter().filter_map(dim).collect()
        };
        let numbers = |length: &Name, ty: &TensorType| Operand {
            ty: TensorType::new(DType::I64, [own(ty, length).unwrap()]),
            values: Values::Below(3),
        };
        let segments = [numbers(&op.q_len, &q), numbers(&op.kv_len, kv)];
        for (dims, kind) in [
            (vec!["H", "L", "KEYS"], 0),
            (vec!["H", "KEYS"], 1),
            (vec!["B", "KEYS", "L"], 2),
            (vec!["A", "L", "KEYS", "B", "H"], 0),
            (vec!["KEYS"], 2),
            (vec!["L", "H"], 0),
        ] {
            let dtype = if kind == 1 { DType::F32 } else { self.float };
            let bias = Operand { ty: TensorType::new(dtype, of(&dims)), values: Values::Within(-2.0, 2.0) };
            let mut op = Attention { bias: Some(keys.name.clone()), ..op.clone() };
            let mut rest = vec![bias];
            match kind {
                1 => rest.extend(window.iter().cloned()),
                2 => {
                    op.visibility.segments = true;
                    rest.extend(segments.clone());
                }
                _ => {}
            }
            let all = [forward, &rest].concat();
            if op.infer(&all.iter().map(|o| &o.ty).collect::<Vec<_>>()).is_err() {
                continue;
            }
            let behind = [backward, &rest].concat();
            // Small, so that sums over what the bias lacks stay of the size of one, in f32 beside operands in bf16.
            let mut small = behind.clone();
            let normal = small.iter_mut().filter(|operand| matches!(operand.values, Values::Normal));
            normal.for_each(|operand| operand.values = Values::Within(-0.5, 0.5));
            self.add(AttentionBiasGrad::of(&op, keys.name.clone()), small);
            self.add(AttentionGrad::of(&op), behind);
            self.add(op, all);
        }
    }
}
