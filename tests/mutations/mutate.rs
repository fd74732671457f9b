//! Changes to an input that follow from a seed: of its words where it is text, of its bytes where it is a plan.

use types::philox4x32_10;

use crate::inputs::{Input, Kind};

/// Numbers that follow from a seed.
pub struct Dice {
    seed: u64,
    drawn: u32,
}

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.drawn += 1;
        philox4x32_10([self.seed as u32, (self.seed >> 32) as u32, self.drawn, 0], [11, 17])[0] as usize % n.max(1)
    }

    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

const WORDS: &[&str] = &[
    "0",
    "1",
    "-1",
    "2",
    "7",
    "63",
    "64",
    "4096",
    "9999999999",
    "99999999999999999999",
    "0.0",
    "1e308",
    "1e999",
    "-0.5",
    "L",
    "DIM",
    "B",
    "T",
    "x",
    "self",
    "None",
    "\"tp\"",
    "\"\"",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    "<",
    ">",
    "\"",
    "fold",
    "forward",
    "new",
    "split",
    "merge",
    "chunks",
    "slice",
    "f64",
    "f32",
    "bf16",
    "bool",
    "i64",
    "work",
    "if",
    "return",
    "*",
    "/",
    "%",
    "+",
    "..",
    "|x|",
    "call",
    "matmul",
    "add",
    "cast",
    "reduce_sum",
    "reshape",
    "get",
    "reshard",
    "@dp",
    "@tp",
    "%0",
    "%1",
    "%99",
    "@train",
    "null",
    "true",
    "\n",
    "\u{e9}",
];

/// The input with one to four changes.
pub fn mutated(input: &Input, dice: &mut Dice) -> Input {
    let mut bytes = input.bytes.clone();
    match input.kind {
        Kind::Plan => bytes = plan_bytes(bytes, dice),
        _ => {
            let mut words = words(&String::from_utf8_lossy(&bytes));
            for _ in 0..=dice.below(4) {
                text(&mut words, dice);
            }
            bytes = words.concat().into_bytes();
        }
    }
    Input { kind: input.kind, bytes }
}

/// Names, numbers and signs.
fn words(text: &str) -> Vec<String> {
    let mut out: Vec<String> = vec![];
    let mut inside = false;
    for c in text.chars() {
        let part_of_word = c.is_alphanumeric() || c == '_';
        match out.last_mut().filter(|_| inside && part_of_word) {
            Some(word) => word.push(c),
            None => out.push(c.into()),
        }
        inside = part_of_word;
    }
    out
}

fn text(words: &mut Vec<String>, dice: &mut Dice) {
    if words.is_empty() {
        return;
    }
    let (at, other) = (dice.below(words.len()), dice.below(words.len()));
    match dice.below(7) {
        0 => drop(words.remove(at)),
        1 => words.insert(at, words[at].clone()),
        2 => words.swap(at, other),
        3 => words[at] = words[other].clone(),
        4 => {
            // A piece of another place.
            let piece = words[other..(other + 1 + dice.below(40)).min(words.len())].to_vec();
            drop(words.splice(at..at, piece));
        }
        5 => drop(words.drain(at..(at + 1 + dice.below(30)).min(words.len()))),
        _ => words[at] = (*dice.one_of(WORDS)).into(),
    }
}

fn plan_bytes(mut bytes: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    for _ in 0..=dice.below(3) {
        if bytes.is_empty() {
            break;
        }
        let at = dice.below(bytes.len());
        match dice.below(5) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = *dice.one_of(&[0, 1, 0x7f, 0x80, 0xff]),
            2 => bytes.insert(at, 0xff),
            3 => drop(bytes.remove(at)),
            _ => {
                let other = dice.below(bytes.len());
                bytes[at] = bytes[other];
            }
        }
    }
    bytes
}
