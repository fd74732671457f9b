//! The reader of a module of programs: a cursor, with what the other files here read by it.

use std::ops::{Deref, DerefMut};

use diag::Cursor;

pub(super) struct Parser<'t>(pub(super) Cursor<'t>);

impl<'t> Deref for Parser<'t> {
    type Target = Cursor<'t>;

    fn deref(&self) -> &Cursor<'t> {
        &self.0
    }
}

impl<'t> DerefMut for Parser<'t> {
    fn deref_mut(&mut self) -> &mut Cursor<'t> {
        &mut self.0
    }
}
