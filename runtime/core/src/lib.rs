//! The executor of one rank's plan.
