//! Tests of datasets as users have them: every record is read, or what is not is refused by name or counted.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use data::{DataError, Dataset, Pieces, Share, write_tensors};
use plan::{Feed, Layout, Source};
use tar::EntryType;
use tempfile::{TempDir, tempdir};
use types::{Indices, TensorType};

fn feed(name: &str, ty: &str) -> Feed {
    Feed {
        name: name.into(),
        aliases: vec![],
        ty: ty.parse().expect("a type"),
        layout: Layout::whole(),
        source: Source::Data,
    }
}

/// The image of a record with `ids` that are all `value`, or with a tensor of another name.
fn image(name: &str, value: i64) -> Vec<u8> {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("r");
    let ty: TensorType = "i64[N:2]".parse().expect("a type");
    let bytes: Vec<u8> = [value, value].iter().flat_map(|v| v.to_le_bytes()).collect();
    write_tensors(&path, &[Pieces::whole(name, &ty, &bytes)]).expect("written");
    fs::read(path).expect("read")
}

fn records(values: std::ops::Range<i64>) -> Vec<(String, Vec<u8>)> {
    values.map(|i| (format!("{i:06}.safetensors"), image("ids", i))).collect()
}

/// A tar in GNU's form, closed or not.
fn tar(members: &[(String, Vec<u8>)], close: bool) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &bytes[..]).expect("a member");
    }
    let whole = tar.into_inner().expect("a tar");
    if close { whole } else { whole[..whole.len() - 1024].to_vec() }
}

/// A member of another kind, with a raw name.
fn special(kind: EntryType, name: &[u8], link: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    if !link.is_empty() {
        header.set_link_name(link).expect("a name");
    }
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn at(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::File::create(&path).expect("made").write_all(bytes).expect("written");
    path
}

fn open(path: &Path) -> Result<Dataset, String> {
    Dataset::open(path, 1, &|_, _, _| {}).map_err(told)
}

fn told(error: DataError) -> String {
    format!("{error}\n{}", error.help().unwrap_or_default())
}

/// The values of all records, sorted.
fn values(set: &mut Dataset) -> Vec<i64> {
    let ids = feed("ids", "i64[B:1, N:2]");
    let mut out = [0; 16];
    let mut all = Vec::new();
    for sample in 0..set.records() as u64 {
        set.batch(&ids, &Share::whole(&ids.ty), sample, &mut out).expect("read");
        all.push(i64::from_le_bytes(*out.first_chunk().expect("eight bytes")));
    }
    all.sort_unstable();
    all
}

fn reads(path: &Path, expect: &[i64], left_out: &str) {
    let mut set = open(path).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(values(&mut set), expect);
    assert_eq!(set.left_out().join(", "), left_out);
}

fn refused(path: &Path, parts: &[&str]) {
    let error = open(path).map(|_| ()).expect_err("refused");
    parts.iter().for_each(|part| assert!(error.contains(part), "`{part}` is not in: {error}"));
}

#[test]
fn names_with_dots_that_hide_records_are_refused() {
    let folder = tempdir().expect("a folder");
    let members: Vec<_> = (0..3).map(|i| (format!("d/clip.v1.{i:03}.safetensors"), image("ids", i))).collect();
    let path = at(&folder, "dots.tar", &tar(&members, true));
    refused(&path, &["`d/clip.v1.000.safetensors` and `d/clip.v1.001.safetensors`", "`ids`", "up to the first dot"]);
    // Dots in folders, and at the start of a name, part nothing.
    let members: Vec<_> = (0..3).map(|i| (format!("v1.0/.{i}.safetensors"), image("ids", i))).collect();
    reads(&at(&folder, "dots.tar", &tar(&members, true)), &[0, 1, 2], "");
}

#[test]
fn archives_after_archives_are_one() {
    let folder = tempdir().expect("a folder");
    let both = [tar(&records(0..2), true), tar(&records(2..5), true)].concat();
    reads(&at(&folder, "twice.tar", &both), &[0, 1, 2, 3, 4], "");
    // The same names again are other records.
    let both = [tar(&records(0..3), true), tar(&records(0..3), true)].concat();
    reads(&at(&folder, "twice.tar", &both), &[0, 0, 1, 1, 2, 2], "");
    let garbage = [tar(&records(0..2), true), b"garbage behind the end".repeat(40)].concat();
    refused(
        &at(&folder, "garbage.tar", &garbage),
        &["garbage.tar: the tar is damaged behind byte 2048, where a member ends"],
    );
}

/// As for whoever unpacks the archive, and as `tar -r` is used.
#[test]
fn a_later_member_of_the_same_name_replaces_the_earlier() {
    let folder = tempdir().expect("a folder");
    let again = |members: &[(&str, i64)]| {
        let more: Vec<_> = members.iter().map(|(name, value)| (name.to_string(), image("ids", *value))).collect();
        [tar(&records(0..3), false), tar(&more, true)].concat()
    };
    let one = again(&[("000001.safetensors", 7)]);
    reads(&at(&folder, "r.tar", &one), &[0, 2, 7], "1 member (each replaced by a later one of its name)");
    let two = again(&[("./000001.safetensors", 7), ("000003.safetensors", 8), ("000001.safetensors", 9)]);
    reads(&at(&folder, "r.tar", &two), &[0, 2, 8, 9], "2 members (each replaced by a later one of its name)");
    // The same in the next archive is another record, and so is the same in another folder.
    let next = [one, tar(&records(1..2), true)].concat();
    reads(&at(&folder, "r.tar", &next), &[0, 1, 2, 7], "1 member (each replaced by a later one of its name)");
    reads(&at(&folder, "r.tar", &again(&[("d/000001.safetensors", 7)])), &[0, 1, 2, 7], "");
    // A member of several stays with its record.
    let both =
        |labels| [("0.a.safetensors".into(), image("ids", 1)), ("0.b.safetensors".into(), image("labels", labels))];
    let other = ("1.a.safetensors".to_string(), image("ids", 4));
    let later = [tar(&[&both(2)[..], &[other]].concat(), false), tar(&both(3)[..1], true)].concat();
    let set = open(&at(&folder, "r.tar", &later)).expect("opens");
    assert_eq!(set.records(), 2);
    // A hard link has the bytes that its member had before.
    let link = special(EntryType::Link, b"l.safetensors", "000001.safetensors", b"");
    let linked = [
        tar(&records(0..3), false),
        link,
        again(&[("000001.safetensors", 7)])[tar(&records(0..3), false).len()..].to_vec(),
    ];
    reads(
        &at(&folder, "r.tar", &linked.concat()),
        &[0, 1, 2, 7],
        "1 member (each replaced by a later one of its name)",
    );
}

#[test]
fn a_tar_that_was_cut_is_refused() {
    let folder = tempdir().expect("a folder");
    let whole = tar(&records(0..3), true);
    for length in (1..whole.len() - 1024).step_by(100).chain([whole.len() - 1024]) {
        refused(&at(&folder, "cut.tar", &whole[..length]), &["cut.tar"]);
    }
    refused(&at(&folder, "open.tar", &tar(&records(0..3), false)), &["no end mark", "truncate -s +1024"]);
    refused(&at(&folder, "none.tar", b""), &["none.tar", "no records"]);
    // Of a first header that is damaged, what is wrong with it is told, not that the file is no tar.
    let seal = |mut bytes: Vec<u8>| {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes().copy_from_slice(&bytes[..512]);
        header.set_cksum();
        bytes[..512].copy_from_slice(header.as_bytes());
        bytes
    };
    let with = |size: &[u8; 12]| [&whole[..124], size, &whole[136..]].concat();
    for (bytes, part) in [
        (with(b"00000000777\0"), "checksum"),
        (seal(with(b"-0000000777\0")), "size"),
        (seal(with(b"zzzzzzzzzzz\0")), "size"),
    ] {
        refused(&at(&folder, "head.tar", &bytes), &["head.tar: the tar is damaged in its first header: ", part]);
    }
    // One block of zeros is a mark, too.
    reads(&at(&folder, "one.tar", &whole[..whole.len() - 512]), &[0, 1, 2], "");
}

#[test]
fn links_are_read_where_they_lead() {
    let folder = tempdir().expect("a folder");
    let link = |kind, name: &[u8], to: &str| special(kind, name, to, b"");
    let of = |members: &[Vec<u8>]| {
        [&tar(&[("d/a.safetensors".into(), image("ids", 7))], false)[..], &members.concat(), &[0; 1024]].concat()
    };
    let hard = link(EntryType::Link, b"d/b.safetensors", "d/a.safetensors");
    let soft = link(EntryType::Symlink, b"e/c.safetensors", "../d/b.safetensors");
    reads(&at(&folder, "l.tar", &of(&[hard, soft])), &[7, 7, 7], "");
    let out = link(EntryType::Symlink, b"e/c.safetensors", "/data/c.safetensors");
    refused(
        &at(&folder, "l.tar", &of(&[out])),
        &["`e/c.safetensors` is a link to `e/data/c.safetensors`", "--dereference"],
    );
    let circle = [
        link(EntryType::Symlink, b"x.safetensors", "y.safetensors"),
        link(EntryType::Symlink, b"y.safetensors", "x.safetensors"),
    ];
    refused(&at(&folder, "l.tar", &of(&circle)), &["`x.safetensors` is a link"]);
    refused(
        &at(&folder, "l.tar", &of(&[link(EntryType::Fifo, b"p.safetensors", "")])),
        &["`p.safetensors` is no file"],
    );
    // A folder of that name holds no tensors.
    reads(&at(&folder, "l.tar", &of(&[link(EntryType::Directory, b"p.safetensors", "")])), &[7], "");
}

#[test]
fn long_and_strange_names_are_names() {
    let folder = tempdir().expect("a folder");
    let long = |i: i64| format!("{}/{i}.safetensors", "long".repeat(60));
    let members: Vec<_> = (0..3).map(|i| (long(i), image("ids", i))).collect();
    reads(&at(&folder, "gnu.tar", &tar(&members, true)), &[0, 1, 2], "");
    // The same in the form of PAX.
    let mut pax = Vec::new();
    for (name, bytes) in &members {
        let length = format!(" path={name}\n").len();
        let length = length + (length + 3).to_string().len();
        pax.extend(special(EntryType::XHeader, b"PaxHeaders/x", "", format!("{length} path={name}\n").as_bytes()));
        pax.extend(special(EntryType::Regular, b"cut off", "", bytes));
    }
    pax.extend([0; 1024]);
    reads(&at(&folder, "pax.tar", &pax), &[0, 1, 2], "");
    // Names that differ in bytes that are no UTF-8 are two records.
    let one = special(EntryType::Regular, b"\xff.safetensors", "", &image("ids", 1));
    let two = special(EntryType::Regular, b"\xfe.safetensors", "", &image("ids", 2));
    reads(&at(&folder, "latin.tar", &[one, two, vec![0; 1024]].concat()), &[1, 2], "");
}

#[test]
fn sparse_members_are_refused() {
    let folder = tempdir().expect("a folder");
    let gnu = special(EntryType::GNUSparse, b"s.safetensors", "", b"");
    refused(&at(&folder, "s.tar", &[gnu, vec![0; 1024]].concat()), &["s.tar"]);
    let extension = special(EntryType::XHeader, b"PaxHeaders/x", "", b"22 GNU.sparse.major=1\n");
    let member = special(EntryType::Regular, b"s.safetensors", "", &image("ids", 1));
    let pax = [extension, member, vec![0; 1024]].concat();
    refused(&at(&folder, "s.tar", &pax), &["`s.safetensors` is stored sparsely", "without --sparse"]);
}

#[test]
fn a_bad_record_is_found_while_indexing_wherever_it_is() {
    let folder = tempdir().expect("a folder");
    let mut members = records(0..300);
    members[299].1 = b"not a safetensors image, but a text of fifty bytes".to_vec();
    refused(
        &at(&folder, "b.tar", &tar(&members, true)),
        &["b.tar/000299.safetensors: no safetensors record", "a text"],
    );
    members[131].1.truncate(80);
    refused(&at(&folder, "b.tar", &tar(&members, true)), &["b.tar/000131.safetensors: no safetensors record: cut"]);
    // What a feed takes is asked of every record.
    members = records(0..300);
    members[299].1 = image("labels", 1);
    let set = open(&at(&folder, "b.tar", &tar(&members, true))).expect("every header reads");
    let error = set.check(&feed("ids", "i64[B:1, N:2]")).expect_err("refused").to_string();
    assert!(error.contains("b.tar/000299: the record has no tensor `ids`, only labels"), "{error}");
    let error = set.check(&feed("ids", "i64[B:1, N:3]")).expect_err("refused").to_string();
    assert!(error.contains("b.tar/000000: `ids` has i64[2]") && error.contains("299 more of 300 records"), "{error}");
}

#[test]
fn members_of_a_record_may_not_have_the_same_tensor() {
    let folder = tempdir().expect("a folder");
    let members = [("0.a.safetensors".into(), image("ids", 1)), ("0.b.safetensors".into(), image("ids", 2))];
    refused(&at(&folder, "t.tar", &tar(&members, true)), &["`0.a.safetensors` and `0.b.safetensors`", "`ids`"]);
    // Nor one image twice.
    let header =
        br#"{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let image = [&(header.len() as u64).to_le_bytes()[..], header, b"1"].concat();
    refused(&at(&folder, "x.safetensors", &image), &["its header has `x` twice"]);
}

#[test]
fn what_a_folder_has_besides_is_counted_or_refused() {
    let folder = tempdir().expect("a folder");
    let mut members = records(0..2);
    members.push(("000001.json".into(), b"{}".to_vec()));
    members.push(("._000001.safetensors".into(), b"of a Mac".to_vec()));
    at(&folder, "d/a.tar", &tar(&members, true));
    at(&folder, "d/B.TAR", &tar(&records(2..3), true));
    at(&folder, "d/c.Safetensors", &image("ids", 3));
    at(&folder, "d/README.md", b"text");
    at(&folder, "d/.cache/x.tar", b"not looked at");
    at(&folder, "d/meta/notes.txt", b"text");
    let path = folder.path().join("d");
    reads(&path, &[0, 1, 2, 3], "1 file (.md), 2 folders, 1 member (.json), 1 member (.safetensors)");
    let packed = tar(&[("0.safetensors.gz".into(), b"..".to_vec())], true);
    refused(&at(&folder, "packed.tar", &packed), &["`0.safetensors.gz` is compressed"]);
    let deep = at(&folder, "d/meta/more/e.tar", &tar(&records(4..5), true));
    refused(&path, &["more/e.tar: records in a folder of the folder are not read", "give that folder"]);
    fs::remove_file(deep).expect("removed");
    for (name, way_out) in
        [("f.tar.gz", "gzip -d"), ("f.tgz", "gzip -d"), ("f.tar.zst", "zstd -d"), ("f.zip", "as .tar")]
    {
        let packed = at(&folder, &format!("d/{name}"), b"..");
        refused(&path, &[name, way_out]);
        fs::remove_file(packed).expect("removed");
    }
    refused(&at(&folder, "x.tar", b"\x1f\x8b\x08\0rest"), &["no tar file: it is compressed by gzip"]);
    refused(&at(&folder, "y.tar", b"<!DOCTYPE html><html>"), &["no tar file: it is an HTML"]);
    refused(&folder.path().join("none"), &["none"]);
    refused(&at(&folder, "e/notes.txt", b"text"), &["the name ends otherwise"]);
    refused(&folder.path().join("e"), &["no records", "there are 1 file (.txt)"]);
}

#[test]
fn a_data_file_that_changes_is_named() {
    let folder = tempdir().expect("a folder");
    let path = at(&folder, "s.tar", &tar(&records(0..4), true));
    let mut set = open(&path).expect("opens");
    let ids = feed("ids", "i64[B:1, N:2]");
    let read = |set: &mut Dataset, sample| set.batch(&ids, &Share::whole(&ids.ty), sample, &mut [0; 16]);
    read(&mut set, 0).expect("read");
    fs::File::options().write(true).open(&path).expect("opens").set_len(100).expect("cut");
    let error = (0..4).find_map(|i| read(&mut set, i).err()).expect("found out").to_string();
    assert!(error.contains("s.tar") && error.contains("shrank"), "{error}");
    // Another file under the name.
    at(&folder, "t/a.safetensors", &image("ids", 1));
    let mut set = open(&folder.path().join("t")).expect("opens");
    at(&folder, "t/a.safetensors", &image(&"longer".repeat(9), 1));
    let error = read(&mut set, 0).expect_err("found out").to_string();
    assert!(error.contains("a.safetensors: the file changed"), "{error}");
}

/// More files than a process may hold open or map.
#[test]
fn many_files_are_read() {
    let folder = tempdir().expect("a folder");
    let record = image("ids", 5);
    for i in 0..3000 {
        fs::write(folder.path().join(format!("{i}.safetensors")), &record).expect("written");
    }
    let mut set = open(folder.path()).expect("opens");
    assert_eq!(set.records(), 3000);
    assert_eq!(values(&mut set), [5; 3000]);
    let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    assert!(open < 1000, "{open} files are open");
}

#[test]
fn ids_of_any_width_are_taken_and_truth_values_are_not() {
    let folder = tempdir().expect("a folder");
    let set = |dtype: &str, bytes: &[u8]| {
        let header = format!(r#"{{"ids":{{"dtype":"{dtype}","shape":[2],"data_offsets":[0,{}]}}}}"#, bytes.len());
        let image = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), bytes].concat();
        let mut set = open(&at(&folder, "i.safetensors", &image)).expect("opens");
        let indices = Source::Indices(Indices { rows: 200, ignored: None });
        let ids = Feed { source: indices, ..feed("ids", "i64[B:1, N:2]") };
        let mut out = [0; 16];
        set.check(&ids)
            .and_then(|()| set.batch(&ids, &Share::whole(&ids.ty), 0, &mut out))
            .map_err(|e| e.to_string())?;
        Ok::<_, String>(out.map(i64::from)[0])
    };
    assert_eq!(set("U8", &[130, 1]), Ok(130));
    assert_eq!(set("I8", &[7, 1]), Ok(7));
    assert_eq!(set("I16", &[7, 0, 1, 0]), Ok(7));
    assert_eq!(set("U64", &[7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]), Ok(7));
    assert!(set("I8", &[0xff, 1]).expect_err("negative").contains("number 0 is -1"));
    assert!(set("U64", &[0xff; 16]).expect_err("too large").contains("does not fit"));
    assert!(set("BOOL", &[1, 0]).expect_err("truth").contains("`ids` holds bool[2]"));
    assert!(set("F32", &[0; 8]).expect_err("floats").contains("`ids` holds f32[2]"));
}
