//! What a file declares beside its code: dims, presets, choices and checks.

use crate::Size;

/// Declares the named axes of a model. `B` alone has its size from outside (`--batch`, a preset, `--set`), `S = 512`
/// has a default, `L = F * H` follows from others, and `T: free` takes the size of an argument at each call. Along
/// `PATCHES: ragged = 256` samples have any number of rows, 256 at most in a data group (a micro-batch of one replica);
/// [`owners!`](crate::owners) says whose they are.
#[macro_export]
macro_rules! dims {
    ($($name:ident $(: $kind:ident)? $(= $value:expr)?),* $(,)?) => {
        $(pub const $name: $crate::Size = $crate::Size;)*
        const _: fn() = || {
            $($(let _: $crate::Size = $crate::Size::from($value);)?)*
        };
    };
}

/// Named sets of values for dims and constants, `visual::HEADS` of an instance; the first is the default. `--set NAME=V`
/// goes over them.
#[macro_export]
macro_rules! presets {
    ($($name:literal { $($($key:ident)::+ = $value:expr),* $(,)? }),* $(,)?) => {
        const _: fn() = || {
            $($($crate::Setting::set(&$($key)::+, $value);)*)*
        };
    };
}

/// Gives the dims and constants of files that this one uses: after `use super::layers::vision as visual;`,
/// `instances! { visual { DIM = WIDTH, HEADS = 16, EPS } }`. Each name that a file is used by is an instance with sizes of
/// its own. A dim that is given a dim is that axis under this file's name; one that is given a number, or keeps its default, is
/// called `visual.HEADS`. `EPS` is short for `EPS = EPS`.
#[macro_export]
macro_rules! instances {
    ($($name:ident { $($key:ident $(= $value:expr)?),* $(,)? }),* $(,)?) => {
        const _: fn() = || {
            $($($crate::instances!(@ $name $key $($value)?);)*)*
        };
    };
    (@ $name:ident $key:ident) => {
        $crate::Setting::set(&$name::$key, $key)
    };
    (@ $name:ident $key:ident $value:expr) => {
        $crate::Setting::set(&$name::$key, $value)
    };
}

/// Other names that data may have for a task's inputs: `aliases! { input_ids = ids }`.
#[macro_export]
macro_rules! aliases {
    ($($input:ident = $alias:ident),* $(,)?) => {};
}

/// Whose the rows along ragged axes are, in the order of their owners: `IMAGES = tokens(input_ids, IMAGE_TOKEN,
/// product(image_grid_thw) / 4)` belong to the sample whose tokens they take up, so many each; `PATCHES = rows(IMAGES,
/// product(image_grid_thw))` to the row of another axis; `ROWS = samples(count)` to samples, so many each. A count is made
/// of numbers, `product(input)` and `sum(input)` of the input's row, and `+ - * /`.
#[macro_export]
macro_rules! owners {
    ($($axis:ident = $owner:ident($($rule:tt)*)),* $(,)?) => {
        $(const _: $crate::Size = $axis;)*
    };
}

/// A tensor whose dims are checked: `Tensor![B, L, DIM]` is in the working type, `Tensor![B; f32]` in f32,
/// `Tensor![.., DIM]` has any dims before, `Tensor![B, L if PER_TOKEN]` has L where the constant says so.
#[macro_export]
macro_rules! Tensor {
    ($($contract:tt)*) => {
        $crate::Tensor
    };
}

/// An input of a task that is kept from run to run; the task's result of the same name is its next value. It starts
/// as noise, or at 0 if it counts in whole numbers.
#[macro_export]
macro_rules! State {
    ($($contract:tt)*) => {
        $crate::Tensor
    };
}

/// What presets and `instances!` may set, and to what.
pub trait Setting<V> {
    fn set(&self, value: V);
}

/// A dim or constant that a config sets, whatever its type.
pub fn named<T>(_: &T) {}

/// A value that a config has, as arms of `match` in [`config!`](crate::config) compare it.
pub fn said<T>() -> T {
    unreachable!("a type alone: nothing here computes")
}

impl Setting<i64> for Size {
    fn set(&self, _: i64) {}
}

impl Setting<Size> for Size {
    fn set(&self, _: Size) {}
}

impl Setting<f64> for f64 {
    fn set(&self, _: f64) {}
}

impl<const N: usize> Setting<[i64; N]> for &[i64] {
    fn set(&self, _: [i64; N]) {}
}

impl Setting<i64> for i64 {
    fn set(&self, _: i64) {}
}

impl Setting<bool> for bool {
    fn set(&self, _: bool) {}
}

impl Setting<&str> for &str {
    fn set(&self, _: &str) {}
}

impl Setting<&[i64]> for &[i64] {
    fn set(&self, _: &[i64]) {}
}

/// A constant that is one of these texts; the first is the default.
pub const fn one_of<const N: usize>(texts: [&'static str; N]) -> &'static str {
    texts[0]
}

/// Stops evaluation with this message unless the condition holds.
pub fn require(_condition: bool, _message: &str) {}
