//! Tests of plan.bin: it reads back, its bytes are fixed, and no damage goes unnoticed.

use std::path::{Path, PathBuf};

use plan::{FORMAT_VERSION, Origin, Phase, Plan, PlanFile, ReadError, sample};

fn plan() -> Plan {
    filled(sample::grid())
}

fn filled(mut plan: Plan) -> Plan {
    plan.object = b"not really an object".to_vec();
    let origins = [
        Origin { phase: Phase::Forward, block: Some(300), microbatch: None },
        Origin { phase: Phase::Backward, block: None, microbatch: Some(7) },
        Origin { phase: Phase::Update, block: None, microbatch: None },
    ];
    let bodies = plan.programs.iter_mut().flat_map(|program| &mut program.bodies);
    for (instruction, origin) in bodies.flat_map(|body| &mut body.instructions).zip(origins.into_iter().cycle()) {
        instruction.origin = origin;
    }
    plan
}

fn file() -> Vec<u8> {
    plan().to_bytes().expect("a small plan can be written").0
}

#[test]
fn reads_back() {
    let plan = sample::two_lanes();
    let (bytes, hash) = plan.to_bytes().expect("written");
    let (read, read_hash) = Plan::from_bytes(&bytes).expect("read");
    assert_eq!(read, plan);
    assert_eq!(read_hash, hash);
    assert_eq!(bytes, plan.to_bytes().expect("written again").0);
    assert_ne!(hash, sample::line().hash().expect("another hash"));
}

#[test]
fn the_object_lies_on_a_page_boundary() {
    let bytes = file();
    let opened = PlanFile::open(&bytes).expect("read");
    assert_eq!(opened.object, b"not really an object");
    assert_eq!((opened.object.as_ptr() as usize - bytes.as_ptr() as usize) % 4096, 0);
}

/// These files must stay readable for as long as version 10 is; a change of the format needs a new version.
#[test]
fn golden_files_of_version_10() {
    assert_eq!(FORMAT_VERSION, 10);
    for (name, plan) in [("version_10.plan", plan()), ("version_10_programs.plan", filled(sample::several()))] {
        let path = golden(name);
        let (bytes, _) = plan.to_bytes().expect("a small plan can be written");
        if !path.exists() && std::env::var_os("WRITE_GOLDEN").is_some() {
            std::fs::write(&path, &bytes).expect("the golden file can be written");
        }
        let golden = std::fs::read(&path).expect("the golden file is there");
        assert!(golden == bytes, "the bytes of a plan changed: raise FORMAT_VERSION and add a golden file for it");
        let (read, _) = Plan::from_bytes(&golden).expect("the golden file reads");
        assert_eq!(read, plan);
    }
}

/// Collectives of version 1 had no element types, bodies of version 2 no units of work, those of version 3 no memory of
/// the host, kernels of version 4 one count of operations, headers of version 5 no figures of configs, instructions
/// of version 6 no origins, programs of version 7 no feeds and emits of their own, manifests of version 8 no ragged
/// axes, figures of version 9 no cases, and its gradients no parameter: their files are refused, and the message says what to do.
#[test]
fn older_versions_are_refused() {
    for version in [1, 2, 3, 4, 5, 6, 7, 8, 9] {
        let old = std::fs::read(golden(&format!("version_{version}.plan"))).expect("the golden file is there");
        let error = PlanFile::open(&old).map(|_| ()).expect_err("refused").to_string();
        let expected = format!(
            "the plan file has format version {version}; this program reads version 10: compile the model again with the \
             mmc that came with it"
        );
        assert_eq!(error, expected);
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut bytes = file();
    for at in 0..bytes.len() {
        let bit = 1 << (at % 8);
        bytes[at] ^= bit;
        assert!(PlanFile::open(&bytes).is_err(), "a flipped bit in byte {at} went unnoticed");
        bytes[at] ^= bit;
    }
    assert!(PlanFile::open(&bytes).is_ok());
}

#[test]
fn every_truncation_is_noticed() {
    let bytes = file();
    for length in 0..bytes.len() {
        assert!(PlanFile::open(&bytes[..length]).is_err());
    }
}

/// Damage that a checksum cannot show: the sections say something else, and their checksums agree.
#[test]
fn well_sealed_nonsense_does_not_panic() {
    let (good, _) = sample::grid().to_bytes().expect("written");
    let start = 64 + 8 * 56;
    let mut refused = 0;
    for at in start..good.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            seal(&mut bytes);
            match PlanFile::open(&bytes) {
                Ok(file) => drop(plan::verify(&file.plan).map(|()| file.plan.to_string())),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 1000, "only {refused} were refused");
}

fn seal(bytes: &mut [u8]) {
    for entry in (64..64 + 8 * 56).step_by(56) {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")) as usize;
        let (from, length) = (number(entry + 8), number(entry + 16));
        let hash = *blake3::hash(&bytes[from..from + length]).as_bytes();
        bytes[entry + 24..entry + 56].copy_from_slice(&hash);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..32]).update(&bytes[64..64 + 8 * 56]);
    let hash = *hasher.finalize().as_bytes();
    bytes[32..64].copy_from_slice(&hash);
}

#[test]
fn errors_say_what_is_wrong() {
    let good = file();
    let message = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        PlanFile::open(&bytes).map(|_| ()).expect_err("refused").to_string()
    };
    let mut text = String::new();
    for (case, change) in [
        ("empty", (&|b: &mut Vec<u8>| b.clear()) as &dyn Fn(&mut Vec<u8>)),
        ("another file", &|b: &mut Vec<u8>| b[1] = b'x'),
        ("later version", &|b: &mut Vec<u8>| b[8] = 11),
        ("unknown feature", &|b: &mut Vec<u8>| b[16] = 4),
        ("cut short", &|b: &mut Vec<u8>| b.truncate(1000)),
        ("too long", &|b: &mut Vec<u8>| b.push(0)),
        ("flipped in the table", &|b: &mut Vec<u8>| b[80] ^= 1),
        ("flipped in the programs", &|b: &mut Vec<u8>| b[1000] ^= 1),
        ("flipped in the object", &|b: &mut Vec<u8>| *b.last_mut().expect("not empty") ^= 1),
    ] {
        text.push_str(&format!("{case}: {}\n", message(change)));
    }
    insta::assert_snapshot!(text);
    assert!(matches!(PlanFile::open(&good[..1000]), Err(ReadError::Truncated { have: 1000, .. })));
}
