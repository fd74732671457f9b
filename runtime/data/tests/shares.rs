//! Tests of what each rank of a mesh gets of a tensor, and of tensors made whole from what the ranks hold.

use std::fs;

use data::{
    Begin, Dataset, Feeds, Folder, Inputs, Pieces, Position, Pretrained, Share, Together, Weights, initialise, latest,
    owners, write_tensors,
};
use plan::{Feed, FeedId, Layout, Source, sample};
use proptest::prelude::*;
use runtime_core::FeedSource;
use tempfile::tempdir;
use types::{Cut, DType, Dim, Distribution, Init, Mesh, Name, TensorType};

const DTYPES: [DType; 5] = [DType::F32, DType::BF16, DType::I64, DType::I32, DType::Bool];

/// A mesh, and a tensor that is cut over it.
#[derive(Clone, Debug)]
struct Case {
    mesh: Mesh,
    ty: TensorType,
    layout: Layout,
}

impl Case {
    fn share(&self, rank: usize) -> Share {
        Share::new(&self.mesh, &self.mesh.coordinates(rank), &self.ty, &self.layout)
    }

    fn owners(&self) -> Vec<(usize, Share)> {
        owners(&self.mesh, &self.ty, &self.layout, 0..self.mesh.world())
    }

    /// The tensor whole again, from one buffer a rank.
    fn whole(&self, buffers: &[Vec<u8>]) -> Vec<u8> {
        let pieces = self.owners().into_iter().map(|(rank, share)| (share, &buffers[rank][..])).collect();
        Pieces { name: "x", ty: &self.ty, pieces }.bytes().into_owned()
    }

    /// What each rank's buffer must be if the whole tensor has these bytes: element by element, by coordinates.
    fn expect(&self, whole: &[u8], rank: usize) -> Vec<u8> {
        let size = self.ty.dtype.bytes();
        let region = self.layout.region(&self.mesh, &self.mesh.coordinates(rank), &self.ty.dims);
        let local = self.mesh.local(&self.ty, &self.layout.cuts);
        let mut buffer = vec![0; local.bytes()];
        for at in 0..local.elements() {
            let (mut rest, mut logical, mut stride, mut held) = (at, 0, 1, true);
            for dim in (0..self.ty.rank()).rev() {
                let i = rest % local.dims[dim].size;
                rest /= local.dims[dim].size;
                held &= i < region.size[dim];
                logical += (region.offset[dim] + i) * stride;
                stride *= self.ty.dims[dim].size;
            }
            if held {
                buffer[at * size..(at + 1) * size].copy_from_slice(&whole[logical * size..(logical + 1) * size]);
            }
        }
        buffer
    }
}

fn meshes() -> impl Strategy<Value = Mesh> {
    let axes = ["dp", "fsdp", "cp.ring", "cp.ulysses", "tp"];
    proptest::collection::vec(1usize..=3, axes.len())
        .prop_map(move |sizes| Mesh::new(axes.into_iter().zip(sizes)).expect("a mesh"))
}

/// A tensor of any rank up to 4, each axis of the mesh cutting some dim or none.
fn layouts(mesh: Mesh, dtypes: &'static [DType]) -> impl Strategy<Value = Case> {
    let axes = mesh.axes.len();
    let sizes = proptest::collection::vec(0usize..=7, 0..=4);
    (sizes, proptest::collection::vec(0usize..=4, axes), proptest::sample::select(dtypes)).prop_map(
        move |(sizes, dims, dtype)| {
            let named = sizes.iter().enumerate().map(|(i, n)| Dim::new(format!("D{i}").as_str(), *n));
            let mut cuts = vec![Cut::default(); sizes.len()];
            for (axis, dim) in mesh.axes.iter().zip(dims) {
                if let Some(cut) = cuts.get_mut(dim) {
                    cut.axes.push(axis.name.clone());
                }
            }
            Case { mesh: mesh.clone(), ty: TensorType::new(dtype, named), layout: Layout { cuts } }
        },
    )
}

fn cases() -> impl Strategy<Value = Case> {
    meshes().prop_flat_map(|mesh| layouts(mesh, &DTYPES))
}

/// One tensor under two meshes.
fn pairs() -> impl Strategy<Value = (Case, Case)> {
    (cases(), meshes()).prop_flat_map(|(a, mesh)| {
        let ty = a.ty.clone();
        let b = layouts(mesh, &DTYPES).prop_map(move |mut b| {
            b.layout.cuts.resize(ty.rank(), Cut::default());
            b.ty = ty.clone();
            b
        });
        (Just(a), b)
    })
}

/// Bytes that differ from element to element, each a valid element.
fn values(ty: &TensorType) -> Vec<u8> {
    let element = |i: usize| match ty.dtype {
        DType::BF16 => (i as u16 | 0x3f00).to_le_bytes().to_vec(),
        DType::I64 => (i as i64 + 1).to_le_bytes().to_vec(),
        DType::I32 => (i as i32 + 1).to_le_bytes().to_vec(),
        DType::Bool => vec![u8::from(i.is_multiple_of(3))],
        _ => (i as f32 + 0.5).to_le_bytes().to_vec(),
    };
    (0..ty.elements()).flat_map(element).collect()
}

fn position() -> Position {
    let (plan_hash, model, preset) = ("ab".into(), "m.mm".into(), "tiny".into());
    Position { step: 3, samples: 6, seed: 7, plan_hash, model, preset, data: None }
}

proptest! {
    #[test]
    fn scattered_and_gathered_is_as_before(case in cases()) {
        let whole = values(&case.ty);
        let mut buffers = Vec::new();
        for rank in 0..case.mesh.world() {
            // What was there before must not shine through.
            let mut buffer = vec![0xAB; case.share(rank).bytes()];
            case.share(rank).scatter(&whole, &mut buffer);
            prop_assert_eq!(&buffer, &case.expect(&whole, rank));
            buffers.push(buffer);
        }
        prop_assert_eq!(case.whole(&buffers), whole);
    }

    #[test]
    fn each_element_has_one_owner_the_lowest_rank(case in cases()) {
        let mut owner = vec![None; case.ty.elements()];
        for (rank, share) in case.owners() {
            for index in share.runs().flat_map(|run| run.logical..run.logical + run.count) {
                prop_assert_eq!(owner[index].replace(rank), None);
            }
        }
        for rank in (0..case.mesh.world()).rev() {
            for index in case.share(rank).runs().flat_map(|run| run.logical..run.logical + run.count) {
                prop_assert!(owner[index].is_some_and(|owner| owner <= rank));
            }
        }
        prop_assert!(owner.iter().all(Option::is_some));
    }

    #[test]
    fn draws_and_initial_values_are_the_same_on_every_mesh(case in meshes().prop_flat_map(|m| layouts(m, &[DType::F32, DType::BF16])), step in 0u64..1000) {
        let source = Source::Draw(Distribution::Normal { mean: 0.0, std: 1.0 });
        let feed = |name: &str, source| Feed { name: name.into(), aliases: vec![], ty: case.ty.clone(), layout: case.layout.clone(), source };
        let feeds = vec![feed("noise", source), feed("x", Source::Data)];
        let mut one = Feeds::new(feeds.clone(), 3, Inputs::none(&feeds), None);
        for id in [FeedId(0), FeedId(1)] {
            let mut whole = vec![0; case.ty.bytes()];
            one.fill(id, step, &mut whole).expect("filled");
            for rank in 0..case.mesh.world() {
                let mut buffer = vec![0xAB; case.share(rank).bytes()];
                one.at(&case.mesh, &case.mesh.coordinates(rank)).fill(id, step, &mut buffer).expect("filled");
                prop_assert_eq!(buffer, case.expect(&whole, rank));
            }
        }
        let init = Init::Random(Distribution::Uniform { lo: -1.0, hi: 1.0 });
        let mut whole = vec![0; case.ty.bytes()];
        initialise(&init, 5, "w", &Share::whole(&case.ty), &mut whole);
        for rank in 0..case.mesh.world() {
            let mut buffer = vec![0xAB; case.share(rank).bytes()];
            initialise(&init, 5, "w", &case.share(rank), &mut buffer);
            prop_assert_eq!(buffer, case.expect(&whole, rank));
        }
    }
}

proptest! {
    // Each case writes and syncs files.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_checkpoint_of_one_mesh_is_read_under_another((a, b) in pairs()) {
        let whole = values(&a.ty);
        let buffers: Vec<Vec<u8>> = (0..a.mesh.world()).map(|rank| a.expect(&whole, rank)).collect();
        let tensor = |name| Pieces {
            name,
            ty: &a.ty,
            pieces: a.owners().into_iter().map(|(rank, share)| (share, &buffers[rank][..])).collect(),
        };
        let folder = tempdir().expect("a folder");
        let together = Together::alone();
        let to = Folder::open(folder.path(), Begin::Fresh, 0, &together).expect("taken");
        to.save(&position(), (&[tensor("w")], &[tensor("exp_avg/w")]), (&Pretrained::default(), 9), &together).expect("saved");
        let (checkpoint, damaged) = latest(folder.path()).expect("opens");
        prop_assert!(damaged.is_empty());
        checkpoint.check([("w", &b.ty)], [("exp_avg/w", &b.ty)]).expect("the same logical tensors");
        for rank in 0..b.mesh.world() {
            let mut buffer = vec![0xAB; b.share(rank).bytes()];
            checkpoint.parameter("w", &b.share(rank), &mut buffer).expect("read");
            prop_assert_eq!(&buffer, &b.expect(&whole, rank));
            buffer.fill(0xAB);
            checkpoint.state("exp_avg/w", &b.share(rank), &mut buffer).expect("read");
            prop_assert_eq!(&buffer, &b.expect(&whole, rank));
        }
    }

    #[test]
    fn inputs_and_data_are_sliced(case in meshes().prop_flat_map(|m| layouts(m, &[DType::F32])), first in 0u64..9) {
        prop_assume!(case.ty.rank() > 0);
        let folder = tempdir().expect("a folder");
        let path = folder.path().join("in.safetensors");
        write_tensors(&path, &[Pieces::whole("x", &case.ty, &values(&case.ty))]).expect("written");
        let feed = Feed { name: "x".into(), aliases: vec![], ty: case.ty.clone(), layout: case.layout.clone(), source: Source::Data };
        let feeds = vec![feed.clone()];
        let inputs = Inputs::open(&path, &feeds, |_| true).expect("fits");
        let given = Feeds::new(feeds.clone(), 3, inputs, None);
        // Three records, each a sample of its own values.
        fs::remove_file(&path).expect("removed");
        let sample = TensorType::new(DType::F32, case.ty.dims[1..].iter().cloned());
        for record in 0..3 {
            let values: Vec<u8> =
                (0..sample.elements()).flat_map(|i| ((record * 1000 + i) as f32).to_le_bytes()).collect();
            let path = folder.path().join(format!("{record}.safetensors"));
            write_tensors(&path, &[Pieces::whole("x", &sample, &values)]).expect("written");
        }
        let data = Dataset::open(folder.path(), 1, &|_, _, _| {}).expect("opens");
        let read = Feeds::new(feeds.clone(), 3, Inputs::none(&feeds), Some(data)).starting(5, first);
        for source in [given, read] {
            let mut whole = vec![0; case.ty.bytes()];
            source.clone().fill(FeedId(0), 7, &mut whole).expect("filled");
            for rank in 0..case.mesh.world() {
                let mut buffer = vec![0xAB; case.share(rank).bytes()];
                source.at(&case.mesh, &case.mesh.coordinates(rank)).fill(FeedId(0), 7, &mut buffer).expect("filled");
                prop_assert_eq!(buffer, case.expect(&whole, rank));
            }
        }
    }

    #[test]
    fn weights_are_sliced_and_converted(case in meshes().prop_flat_map(|m| layouts(m, &[DType::F32]))) {
        let folder = tempdir().expect("a folder");
        let path = folder.path().join("w.safetensors");
        write_tensors(&path, &[Pieces::whole("w", &case.ty, &values(&case.ty))]).expect("written");
        let mut parameter = sample::line().manifest.parameters.remove(0);
        parameter.ty = case.ty.with_dtype(DType::BF16);
        let case = Case { ty: parameter.ty.clone(), ..case };
        let weights = Weights::open(&path, std::slice::from_ref(&parameter)).expect("opens");
        weights.check(std::slice::from_ref(&parameter), &[]).expect("complete");
        let mut whole = vec![0; case.ty.bytes()];
        weights.load(&parameter, &Share::whole(&case.ty), &mut whole).expect("loads");
        for rank in 0..case.mesh.world() {
            let mut buffer = vec![0xAB; case.share(rank).bytes()];
            weights.load(&parameter, &case.share(rank), &mut buffer).expect("loads");
            prop_assert_eq!(buffer, case.expect(&whole, rank));
        }
    }
}

/// What other ranks read may be gone.
#[test]
fn only_the_bytes_of_the_share_are_read() {
    let mesh = Mesh::new([("tp", 4)]).expect("a mesh");
    let mut parameter = sample::line().manifest.parameters.remove(0);
    parameter.ty = "f32[OUT:4096, IN:4096]".parse().expect("a type");
    let cut = Cut { axes: std::iter::once(Name::new("tp")).collect() };
    parameter.layout = Layout { cuts: vec![cut, Cut::default()] };
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("w.safetensors");
    write_tensors(&path, &[Pieces::whole("w", &parameter.ty, &vec![1; parameter.ty.bytes()])]).expect("written");

    let weights = Weights::open(&path, std::slice::from_ref(&parameter)).expect("opens");
    weights.check(std::slice::from_ref(&parameter), &[]).expect("complete");
    let size = fs::metadata(&path).expect("there").len();
    for (rank, kept) in [(3, size), (2, size * 3 / 4), (0, size / 4)] {
        // The header lies before the tensors.
        let file = fs::File::options().write(true).open(&path).expect("opens");
        file.set_len(kept + (1 << 12)).expect("cut");
        let load = |rank| {
            let share = Share::new(&mesh, &mesh.coordinates(rank), &parameter.ty, &parameter.layout);
            let mut buffer = vec![0; share.bytes()];
            weights.load(&parameter, &share, &mut buffer).map(|()| buffer.iter().all(|b| *b == 1))
        };
        assert!(load(rank).expect("loads"), "rank {rank}");
        if rank < 3 {
            let error = load(rank + 1).expect_err("gone").to_string();
            assert!(error.contains("w.safetensors: the file shrank while it was read"), "{error}");
        }
    }
}
