//! Damaged files of all kinds: whatever their bytes are, readers give an answer soon, and take no memory that the file
//! does not have. `DATA_CASES=100000` tries more.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use data::{Dataset, Pieces, Share, TensorFile, Weights, write_tensors};
use plan::{Feed, Layout, Parameter, Source, sample};
use types::{Config, Fact, Figure, TensorType, philox4x32_10};

/// Numbers that follow from a seed.
struct Dice(u32, u32);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.1 += 1;
        philox4x32_10([self.0, self.1, 0, 0], [7, 7])[0] as usize % n.max(1)
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// A few changes, each of one kind.
fn mutate(bytes: &mut Vec<u8>, words: &[&[u8]], dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len());
        let length = 1 + dice.below(64).min(bytes.len().saturating_sub(at + 1));
        match dice.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.below(8),
            1 if !bytes.is_empty() => bytes[at] = *dice.one_of(b"\0\x01 09-[{\"\xff"),
            2 => bytes.truncate(at),
            3 if at + length <= bytes.len() => drop(bytes.drain(at..at + length)),
            4 => drop(bytes.splice(at..at, dice.one_of(words).iter().copied())),
            5 if at + 8 <= bytes.len() => {
                let number = *dice.one_of(&[0, 1, 7, 8, 1 << 20, 99_999_999, 1 << 31, 1 << 40, u64::MAX - 7, u64::MAX]);
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            6 => {
                let block = at / 512 * 512;
                let piece = bytes[block..(block + 512).min(bytes.len())].to_vec();
                let to = dice.below(bytes.len() + 1) / 512 * 512;
                drop(bytes.splice(to..to, piece));
            }
            7 if at + length <= bytes.len() => bytes[at..at + length].fill(*dice.one_of(b"\x007 9")),
            _ => bytes.extend(dice.one_of(words).iter()),
        }
    }
}

/// Makes the sums of headers right again, so that what they hold is looked at.
fn seal(tar: &mut [u8]) {
    for header in tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

fn image(name: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let types: [TensorType; 2] = ["f32[N:2]", "i64[]"].map(|ty| ty.parse().expect("a type"));
    let pieces = [Pieces::whole(name, &types[0], &[0; 8]), Pieces::whole("n", &types[1], &[1; 8])];
    let path = folder.path().join("i");
    write_tensors(&path, &pieces).expect("written");
    fs::read(path).expect("read")
}

fn tar() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let long = format!("{}/c.a.safetensors", "d".repeat(120));
    for name in ["a.safetensors", "b.x.safetensors", "b.json", long.as_str()] {
        let mut header = tar::Header::new_gnu();
        let bytes = image("x");
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &bytes[..]).expect("a member");
    }
    tar.append_pax_extensions([("path", &b"p.safetensors"[..]), ("comment", &b"x"[..])]).expect("extensions");
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Link);
    header.set_size(0);
    tar.append_link(&mut header, "l.safetensors", "a.safetensors").expect("a link");
    tar.into_inner().expect("a tar")
}

fn parameter() -> Parameter {
    let mut parameter = sample::line().manifest.parameters.remove(0);
    parameter.ty = "f32[N:2]".parse().expect("a type");
    (parameter.name, parameter.aliases) = ("model.x".into(), vec!["y".into()]);
    parameter
}

fn config() -> Config {
    let figure = Figure {
        keys: vec!["rope_parameters.rope_theta".into(), "rope_theta".into()],
        default: Some(Fact::Number(1e4)),
        cases: vec![],
        value: Fact::Number(1e6),
        setting: Some("THETA".into()),
    };
    Config {
        class: "Net".into(),
        figures: vec![figure],
        ignored_weights: vec![],
        renames: vec![],
        other_weights: vec![],
    }
}

fn read_data(path: &Path) {
    if let Ok(mut set) = Dataset::open(path, 0, &|_, _, _| {}) {
        let ty: TensorType = "f32[B:1, N:2]".parse().expect("a type");
        let feed = Feed { name: "x".into(), aliases: vec![], ty, layout: Layout::whole(), source: Source::Data };
        drop(set.check(&feed));
        for sample in 0..set.records() as u64 {
            drop(set.batch(&feed, &Share::whole(&feed.ty), sample, &mut [0; 8]));
        }
    }
}

fn read_weights(path: &Path) {
    let parameters = [parameter()];
    if let Ok(weights) = Weights::open(path, &parameters)
        && weights.check(&parameters, &[config()]).is_ok()
    {
        let loaded = weights.load(&parameters[0], &Share::whole(&parameters[0].ty), &mut [0; 8]);
        // Only values are not looked at before.
        let told = loaded.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(told.is_empty() || told.contains("weights are finite numbers"), "what was checked loads: {told}");
    }
}

#[test]
fn mutated_files_are_read_or_refused() {
    let cases: u32 = std::env::var("DATA_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let words: [&[u8]; 12] = [
        b"\"data_offsets\":[0,18446744073709551615]",
        b"\"shape\":[4294967296,4294967296]",
        b"[[[[[[[[",
        b"{\"a\":",
        b"\"dtype\":\"F8_E4M3\"",
        b"\"__metadata__\":{}",
        b"00000-of-99999",
        b"rope_parameters",
        b"../x",
        b"null",
        b"1e999",
        b"\0\0\0\0\0\0\0\0",
    ];
    let index = br#"{"metadata":{},"weight_map":{"model.x":"m-00001-of-00002.safetensors","z":"m-00002-of-00002.safetensors"}}"#;
    let config = br#"{"architectures":["Net"],"rope_theta":1e6,"rope_parameters":{"rope_theta":1000000.0}}"#;
    let (record, archive, weights) = (image("x"), tar(), image("model.x"));
    fs::create_dir(at("w")).expect("made");
    for case in 0..cases {
        let mut dice = Dice(case, 0);
        let start = Instant::now();
        match case % 5 {
            0 | 1 => {
                let mut bytes = archive.clone();
                mutate(&mut bytes, &words, &mut dice);
                if case % 2 == 0 {
                    seal(&mut bytes);
                }
                fs::write(at("d.tar"), bytes).expect("written");
                read_data(&at("d.tar"));
            }
            2 => {
                let mut bytes = record.clone();
                mutate(&mut bytes, &words, &mut dice);
                fs::write(at("r.safetensors"), bytes).expect("written");
                read_data(&at("r.safetensors"));
                if let Ok(file) = TensorFile::open(&at("r.safetensors")) {
                    file.names().filter_map(|n| file.get(n)).for_each(|v| drop(v.data().expect("inside the file")));
                }
            }
            3 => {
                let mut bytes = weights.clone();
                mutate(&mut bytes, &words, &mut dice);
                fs::write(at("w/m-00001-of-00002.safetensors"), bytes).expect("written");
                fs::write(at("w/m-00002-of-00002.safetensors"), &record).expect("written");
                read_weights(&at("w"));
            }
            _ => {
                let (mut a, mut b) = (index.to_vec(), config.to_vec());
                mutate(if case % 2 == 0 { &mut a } else { &mut b }, &words, &mut dice);
                fs::write(at("w/m-00001-of-00002.safetensors"), &weights).expect("written");
                fs::write(at("w/m.safetensors.index.json"), a).expect("written");
                fs::write(at("w/config.json"), b).expect("written");
                read_weights(&at("w"));
                fs::remove_file(at("w/m.safetensors.index.json")).expect("removed");
            }
        }
        assert!(start.elapsed() < Duration::from_secs(10), "case {case} took {:?}", start.elapsed());
    }
    // The most that was ever in memory, in KiB.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    assert!(most.is_none_or(|kib| kib < 512 << 10), "{most:?} KiB were in memory");
}
