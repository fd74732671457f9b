//! Tests of the CPU's kernels: an object loads and computes, and what cannot run is refused with its reason.

mod line;

use device::{CpuKernels, LoadError, image};
use plan::{BufferId, EmitId, FeedId, Plan, Verified, sample};
use runtime_core::{Executor, FeedError, FeedSource, Feeder, Options};

struct Ones;

impl FeedSource for Ones {
    fn fill(&mut self, _: FeedId, _: u64, to: &mut [u8]) -> Result<(), FeedError> {
        to.chunks_exact_mut(4).for_each(|c| c.copy_from_slice(&1f32.to_le_bytes()));
        Ok(())
    }
}

#[test]
fn an_embedded_object_runs() {
    let plan = line::with_object(sample::two_lanes());
    let kernels = CpuKernels::load(&plan.header, &plan.kernels, &plan.object).expect("loads");
    let again = CpuKernels::load(&plan.header, &plan.kernels, &plan.object).expect("loads twice at once");
    let options = Options { threads: 2, ..Options::default() };
    let plan = Verified::new(plan).expect("a plan that is right");
    let mut executor = Executor::new(&plan, kernels, None, &options).expect("an executor");
    drop(again);
    executor.request(0, EmitId(0), true);
    let mut feeder = Feeder::new(&executor, 0, Ones, 0, None).expect("a feeder");
    executor.run(0, &mut feeder).expect("a step");
    // Weights begin as zero, so each prediction misses its target by one.
    assert_eq!(executor.emitted(0, EmitId(0))[..], 1f32.to_le_bytes());
    assert_eq!(executor.read(BufferId(2)).expect("memory").expect("step"), 1i64.to_le_bytes());
}

#[test]
fn refusals_name_the_reason() {
    let good = line::with_object(sample::line());
    let message = |change: &dyn Fn(&mut Plan)| {
        let mut plan = good.clone();
        change(&mut plan);
        CpuKernels::load(&plan.header, &plan.kernels, &plan.object).map(|_| ()).expect_err("refused")
    };
    let text: Vec<_> = [
        message(&|p| p.header.target = "ascend-910b3".into()),
        message(&|p| p.header.kernel_abi = 9),
        message(&|p| {
            p.header.device = "diamond rapids".into();
            p.header.features = ["sse2", "avx1024", "amx-quux"].map(Into::into).into();
        }),
        message(&|p| p.object.clear()),
        message(&|p| p.kernels[1].symbol = "softmax".into()),
    ]
    .iter()
    .map(LoadError::to_string)
    .collect();
    insta::assert_snapshot!(text.join("\n"));
    assert!(matches!(message(&|p| p.object.truncate(100)), LoadError::Load(_)));
}

#[test]
fn files_are_read_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("f");
    std::fs::write(&path, b"").expect("written");
    assert!(image(&path).expect("empty").is_empty());
    std::fs::write(&path, b"abc").expect("written");
    let bytes = image(&path).expect("read");
    std::fs::write(&path, b"").expect("shrunk");
    assert_eq!(bytes, b"abc");
    assert!(image(folder.path()).is_err());
    // What has no end by its size, though more can be read, is no plan.
    assert!(
        image("/proc/self/status".as_ref()).expect_err("changed").to_string().contains("changed while it was read")
    );
}
