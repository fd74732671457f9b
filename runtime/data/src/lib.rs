//! Where feeds, parameters and checkpoints come from and go to.
