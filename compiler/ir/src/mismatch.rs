//! Why an operator does not take its operands.

use std::fmt;

/// Says what does not fit, which operands are to blame (by index), and the way out where one is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mismatch {
    pub message: String,
    pub operands: Vec<usize>,
    pub help: Option<String>,
}

impl Mismatch {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), operands: vec![], help: None }
    }

    #[must_use]
    pub fn of(mut self, operands: impl IntoIterator<Item = usize>) -> Self {
        self.operands.extend(operands);
        self
    }

    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}
