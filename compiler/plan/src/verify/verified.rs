//! A plan with its proof done, shared by the ranks that run it.

use std::sync::Arc;

use super::verify;
use crate::{Plan, Violation};

/// Only [`verify`] makes one, and nothing changes the plan afterwards.
#[derive(Clone, Debug)]
pub struct Verified(Arc<Plan>);

impl Verified {
    pub fn new(plan: Plan) -> Result<Self, Vec<Violation>> {
        verify(&plan)?;
        Ok(Self(Arc::new(plan)))
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.0
    }
}
