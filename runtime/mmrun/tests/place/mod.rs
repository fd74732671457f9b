//! A folder with a plan in it, where the program runs.
#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../../../device/tests/line/mod.rs"]
mod line;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use plan::{Plan, sample};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use tempfile::TempDir;

static LINE: LazyLock<Vec<u8>> = LazyLock::new(|| line::object(false));
static GRID: LazyLock<Vec<u8>> = LazyLock::new(|| line::object(true));

/// A folder with a plan in it.
pub struct Place(pub TempDir);

impl Place {
    pub fn new() -> Self {
        Self::with(sample::two_lanes())
    }

    pub fn with(mut plan: Plan) -> Self {
        plan.object = if plan.header.model == "grid.mm" { GRID.clone() } else { LINE.clone() };
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("plan.bin"), plan.to_bytes().expect("bytes").0).expect("written");
        Self(folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs in the folder.
    pub fn run(&self, args: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mmrun"));
        command.current_dir(self.0.path()).args(args.split_whitespace()).env_remove("RUST_LOG");
        command.output().expect("mmrun runs")
    }

    /// Standard error of a run that succeeds.
    pub fn good(&self, args: &str) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "`mmrun {args}` failed:\n{text}");
        text
    }

    /// Standard error of a run that fails.
    pub fn bad(&self, args: &str) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1), "`mmrun {args}` fails with 1");
        String::from_utf8(output.stderr).expect("text")
    }

    pub fn tensors(&self, name: &str) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        let bytes = fs::read(self.path(name)).expect("a file");
        let read = SafeTensors::deserialize(&bytes).expect("safetensors");
        let floats = |t: &TensorView<'_>| t.data().chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
        read.iter().map(|(name, t)| (name.to_string(), (t.shape().to_vec(), floats(&t)))).collect()
    }

    pub fn write(&self, name: &str, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, image(tensors)).expect("written");
    }
}

pub fn image(tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) -> Vec<u8> {
    let view = |(name, dtype, shape, data): &'_ (&str, Dtype, &[usize], Vec<u8>)| {
        (name.to_string(), (*dtype, shape.to_vec(), data.clone()))
    };
    let owned: Vec<_> = tensors.iter().map(view).collect();
    let views = owned.iter().map(|(name, (dtype, shape, data))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), data).expect("a tensor"))
    });
    serialize(views, None).expect("an image")
}

pub fn f32s(values: &[f32]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

pub fn ramp(count: usize, start: f32) -> Vec<u8> {
    f32s(&(0..count).map(|i| start + i as f32 * 0.125).collect::<Vec<_>>())
}

/// Removes what differs from run to run: times and rates.
pub fn steady(text: &str) -> String {
    let cut = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let indent = &line[..line.len() - line.trim_start().len()];
        let keep = match words.as_slice() {
            ["step", _, "loss", ..] => 4,
            ["ready", "after", ..] => 2,
            [_, "steps,", ..] => 2,
            _ => return line.to_string(),
        };
        format!("{indent}{} ...", words[..keep].join(" "))
    };
    text.lines().map(|line| cut(line) + "\n").collect()
}

pub fn write_tar(path: &Path, members: impl IntoIterator<Item = (String, Vec<u8>)>) {
    let mut tar = tar::Builder::new(fs::File::create(path).expect("a file"));
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).expect("a member");
    }
    tar.finish().expect("a tar");
}
