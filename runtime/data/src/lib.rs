//! Where feeds, parameters and checkpoints come from, and where results go.

mod checkpoint;
mod convert;
mod dataset;
mod error;
mod feeds;
pub mod fingerprint;
mod initial;
mod inputs;
mod outputs;
pub mod same_folder;
mod share;
mod shuffle;
mod tensor_file;
mod together;
mod weights;

pub use checkpoint::{Checkpoint, LARGEST_FILE, Position, latest, save};
pub use convert::{ConvertError, convert, convert_values, widen};
pub use dataset::Dataset;
pub use error::{DataError, Problem};
pub use feeds::Feeds;
pub use initial::initialise;
pub use inputs::Inputs;
pub use outputs::Outputs;
pub use share::{Pieces, Run, Share, Snapshot, owners};
pub use tensor_file::{TensorFile, TensorView, TensorWriter, Tensors, write_tensors};
pub use together::{MeetingAt, MeetingFault, Together};
pub use weights::Weights;
