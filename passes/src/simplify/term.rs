//! What a node of the e-graph is: an instruction without its place, over classes of equal values.

use std::cmp::Ordering;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use egg::{Id, Language};
use ir::{Class, Inst, Op, Type};
use smallvec::SmallVec;

#[derive(Clone, Debug)]
pub struct Term {
    pub kind: Arc<Kind>,
    pub children: SmallVec<[Id; 4]>,
}

#[derive(Debug)]
pub struct Kind {
    pub inst: Inst,
    /// Of all but operators, whose type follows from their operands.
    pub ty: Option<Type>,
    /// Equal for equal instructions; attributes hold floats, which have no order or hash of their own.
    key: Vec<u8>,
    hash: u64,
}

impl Term {
    pub fn new(inst: Inst, ty: &Type, children: impl IntoIterator<Item = Id>) -> Self {
        let ty = (!matches!(inst, Inst::Op(_))).then(|| ty.clone());
        Self { kind: Arc::new(Kind::new(inst, ty)), children: children.into_iter().collect() }
    }

    pub fn op(op: Op, children: &[Id]) -> Self {
        Self { kind: Arc::new(Kind::new(Inst::Op(op), None)), children: children.into() }
    }

    pub fn as_op(&self) -> Option<&Op> {
        match &self.kind.inst {
            Inst::Op(op) => Some(op),
            _ => None,
        }
    }
}

impl Kind {
    fn new(inst: Inst, ty: Option<Type>) -> Self {
        let key = match (&inst, &ty) {
            // Bits rather than digits: a table may be large.
            (Inst::Op(Op::Table(t)), _) => {
                let mut key = format!("table {:?} {} ", t.dims, t.dtype).into_bytes();
                key.extend(t.data.iter().flat_map(|v| v.to_bits().to_le_bytes()));
                key
            }
            (Inst::Op(op), _) => [op.name(), " ", &distinguishing(op)].concat().into_bytes(),
            (inst, ty) => {
                let mut key = format!("{inst:?} ");
                if let Some(ty) = ty {
                    let _ = write!(key, "{ty}");
                }
                key.into_bytes()
            }
        };
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        Self { inst, ty, key, hash: hasher.finish() }
    }

    fn cmp(self: &Arc<Self>, other: &Arc<Self>) -> Ordering {
        if Arc::ptr_eq(self, other) { Ordering::Equal } else { self.key.cmp(&other.key) }
    }
}

/// The attributes; a collective is the same for whatever reason it is there.
fn distinguishing(op: &Op) -> String {
    let all = op.attributes();
    if op.class() != Class::Collective {
        return all;
    }
    match serde_json::from_str(&all) {
        Ok(serde_json::Value::Object(mut fields)) => {
            fields.remove("why");
            serde_json::Value::Object(fields).to_string()
        }
        _ => all,
    }
}

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        self.children == other.children && self.matches(other)
    }
}

impl Eq for Term {}

impl PartialOrd for Term {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Term {
    fn cmp(&self, other: &Self) -> Ordering {
        self.kind.cmp(&other.kind).then_with(|| self.children.cmp(&other.children))
    }
}

impl Hash for Term {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash.hash(state);
        self.children.hash(state);
    }
}

impl Language for Term {
    type Discriminant = u64;

    fn discriminant(&self) -> u64 {
        self.kind.hash
    }

    fn matches(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kind, &other.kind) || (self.kind.hash == other.kind.hash && self.kind.key == other.kind.key)
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}
