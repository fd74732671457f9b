//! Writing a checkpoint: under a name of its own until it is whole, by all processes of a run at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use super::folder::Folder;
use super::lock::unique;
use super::{FORMAT, Part, Position, STATE, TRAINER, Trainer, remove, sync, write_synced};
use crate::other_weights::OtherWeights;
use crate::pretrained::FileSet;
use crate::{DataError, Pieces, Pretrained, TensorWriter, Together};

impl Folder {
    /// Writes `DIR/step-N` and points `DIR/latest` at it; gives the folder. The model's files are those of `model`. What is
    /// written are logical tensors, so that any other mesh can go on from them. All processes of a run call this, each with its own pieces of all tensors. What
    /// fails in one of them fails in all, and nothing of it stays. Where the disk is full, checkpoints go that would go
    /// behind it, with `keep` of them to be kept.
    pub fn save(
        &self,
        position: &Position,
        tensors: (&[Pieces<'_>], &[Pieces<'_>]),
        (model, keep): (&Pretrained, usize),
        together: &Together,
    ) -> Result<PathBuf, DataError> {
        let _span = tracing::info_span!("save", step = position.step).entered();
        loop {
            match self.attempt(position, tensors, (model, keep), together) {
                Err(error @ DataError::Peers(_)) => return Err(error),
                Err(error) => match self.room_after(&error, position.step, keep, together)? {
                    true => {}
                    false if error.is_full() => return Err(self.full()),
                    false => return Err(error),
                },
                saved => return saved,
            }
        }
    }

    /// Whether a save that failed may succeed now, since the disk was full and older checkpoints went.
    fn room_after(&self, error: &DataError, step: u64, keep: usize, together: &Together) -> Result<bool, DataError> {
        let attempt = self.attempts.fetch_add(1, Relaxed);
        let what = |what: &str| format!("{what} {} ({attempt})", self.path.display());
        let full = together.agree(&what("tell what became of the save to"), Ok(vec![u8::from(error.is_full())]))?;
        // What `begin` said was found before anything was written: nothing that may go would be enough.
        let enough = !matches!(error, DataError::Full { .. });
        if !full.contains(&vec![1]) {
            return Ok(false);
        }
        let made = if together.is_first() && enough { self.make_more_room(step, keep) } else { Ok(false) };
        let made = together.agree(&what("remove older checkpoints of"), made.map(|made| vec![u8::from(made)]))?;
        Ok(made[0] == [1])
    }

    fn attempt(
        &self,
        position: &Position,
        tensors: (&[Pieces<'_>], &[Pieces<'_>]),
        (model, keep): (&Pretrained, usize),
        together: &Together,
    ) -> Result<PathBuf, DataError> {
        let name = format!("step-{:06}", position.step);
        let folder = self.path.join(&name);
        let attempt = self.attempts.fetch_add(1, Relaxed);
        let begin = || {
            self.hold()?;
            self.make_room(position.step, keep)?;
            self.begin(&unique(&name, attempt), model)
        };
        let begun = if together.is_first() { begin() } else { Ok(Vec::new()) };
        let begun = together.agree(&format!("begin {} ({attempt})", folder.display()), begun)?;
        let temporary = self.path.join(String::from_utf8_lossy(&begun[0]).as_ref());
        let saved = write(&temporary, tensors, model, together).and_then(|files| {
            let finish = || self.finish(position, files, model, (&name, &temporary));
            let shown = if together.is_first() { finish() } else { Ok(()) };
            together.agree(&format!("show {}", temporary.display()), shown.map(|()| Vec::new()))
        });
        if saved.is_err() && together.is_first() {
            // The reason is told; what is left is removed by the next run in this folder.
            let _ = remove(&temporary);
        }
        saved.map(|_| folder)
    }

    fn begin(&self, name: &str, model: &Pretrained) -> Result<Vec<u8>, DataError> {
        let temporary = self.path.join(name);
        fs::create_dir(&temporary).map_err(|e| DataError::file(&temporary, e))?;
        for folder in model.folders().iter().map(|folder| temporary.join(folder)) {
            fs::create_dir_all(&folder).map_err(|e| DataError::file(&folder, e))?;
        }
        Ok(name.as_bytes().to_vec())
    }

    fn finish(
        &self,
        position: &Position,
        files: Vec<Part>,
        model: &Pretrained,
        (name, temporary): (&str, &Path),
    ) -> Result<(), DataError> {
        model.beside().iter().try_for_each(|file| file.write(temporary))?;
        let trainer = Trainer { format: FORMAT, position: position.clone(), files };
        let path = temporary.join(STATE).join(TRAINER);
        let mut text = serde_json::to_vec_pretty(&trainer).map_err(|e| DataError::format(&path, e))?;
        text.push(b'\n');
        write_synced(&path, &text)?;
        model.folders().iter().try_for_each(|folder| sync(&temporary.join(folder)))?;
        sync(temporary)?;
        self.show(name, temporary)
    }
}

/// Writes the files of tensors; gives what they hold.
fn write(
    folder: &Path,
    tensors: (&[Pieces<'_>], &[Pieces<'_>]),
    model: &Pretrained,
    together: &Together,
) -> Result<Vec<Part>, DataError> {
    let saved = model.tensors(tensors.0.iter().map(|p| (p.name, p.ty)));
    let (mut parts, mut writers, mut order, mut indexed) = (Vec::new(), Vec::new(), Vec::new(), Ok(()));
    for set in model.files(tensors, &saved) {
        let groups = groups(&set.tensors, set.largest);
        let count = groups.len() + usize::from(set.others.is_some());
        let mut names: Vec<String> = (1..=count).map(|i| file_name(&set.stem, i, count)).collect();
        order.extend(names.iter().cloned());
        let of_others = set.others.and_then(|others| Some((others, names.pop()?)));
        for (name, group) in names.iter().zip(&groups) {
            let path = folder.join(name);
            let types: Vec<_> = group.iter().map(|t| (t.name, t.ty)).collect();
            let made = together.create(&path, &types);
            let written = made.and_then(|writer| Ok((writer.write_all(group)?, writer)));
            let (hash, writer) = match written {
                Ok((hash, writer)) => (Ok(hash.map(|h| h.to_hex().to_string()).unwrap_or_default()), Some(writer)),
                Err(error) => (Err(error), None),
            };
            // A process that has all tensors of a file knows its hash.
            let hashes = together.agree(&format!("write {}", path.display()), hash.map(String::into_bytes))?;
            let hash = hashes.iter().find(|h| !h.is_empty()).map(|h| String::from_utf8_lossy(h).into_owned());
            let Some(writer) = writer else { continue };
            let part = Part {
                name: name.clone(),
                bytes: writer.bytes(),
                blake3: String::new(),
                prefix: set.prefix.into(),
                renames: set.renames.to_vec(),
                others: false,
            };
            match hash {
                Some(blake3) => parts.push(Part { blake3, ..part }),
                None => writers.push((part, writer)),
            }
        }
        if let Some((others, name)) = &of_others {
            let written = if together.is_first() { copy(folder, name, others).map(Some) } else { Ok(None) };
            let (part, told) = match written {
                Ok(part) => (part, Ok(Vec::new())),
                Err(error) => (None, Err(error)),
            };
            together.agree(&format!("copy {name}"), told)?;
            parts.extend(part);
        }
        if together.is_first() && count > 1 && indexed.is_ok() {
            indexed = write_index(folder, &set, (&names, &groups), of_others);
        }
    }
    let hashed = indexed.and_then(|()| hashes(folder, &writers, together));
    let hashed = together.agree(&format!("hash {}", folder.display()), hashed)?;
    if !writers.is_empty() {
        for bytes in hashed {
            parts.extend(serde_json::from_slice::<Vec<Part>>(&bytes).map_err(|e| DataError::format(folder, e))?);
        }
        parts.sort_by_key(|part| order.iter().position(|name| *name == part.name));
    }
    Ok(parts)
}

/// Writes the weights of a class's other parts to a file of their own.
fn copy(folder: &Path, name: &str, others: &OtherWeights) -> Result<Part, DataError> {
    let (bytes, hash) = others.write(&folder.join(name))?;
    let (name, blake3) = (name.into(), hash.to_hex().to_string());
    Ok(Part { name, bytes, blake3, prefix: String::new(), renames: vec![], others: true })
}

/// Tensors in files, in their order.
fn groups<'t, 'a>(tensors: &'t [Pieces<'a>], largest: usize) -> Vec<Vec<&'t Pieces<'a>>> {
    let (mut groups, mut bytes) = (vec![Vec::new()], 0);
    for tensor in tensors {
        if bytes > 0 && bytes + tensor.ty.bytes() > largest {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += tensor.ty.bytes();
        groups.last_mut().into_iter().for_each(|g| g.push(tensor));
    }
    groups
}

/// `model.safetensors`, or `model-00002-of-00003.safetensors`.
fn file_name(stem: &str, number: usize, of: usize) -> String {
    if of == 1 { format!("{stem}.safetensors") } else { format!("{stem}-{number:05}-of-{of:05}.safetensors") }
}

fn write_index(
    folder: &Path,
    set: &FileSet<'_>,
    (names, groups): (&[String], &[Vec<&Pieces<'_>>]),
    others: Option<(&OtherWeights, String)>,
) -> Result<(), DataError> {
    let path = folder.join(format!("{}.safetensors.index.json", set.stem));
    let own: usize = groups.iter().flatten().map(|t| t.ty.bytes()).sum();
    let total = own as u64 + others.as_ref().map_or(0, |(others, _)| others.bytes());
    // An index has the names of files that lie beside it.
    let beside = |name: &String| name.rsplit('/').next().unwrap_or(name).to_string();
    let files = names.iter().zip(groups).flat_map(|(name, group)| group.iter().map(move |t| (t.name, name)));
    let others = others.iter().flat_map(|(others, file)| others.names().map(move |name| (name, file)));
    let entry = |(tensor, file): (&str, &String)| (tensor.to_string(), beside(file).into());
    let map: serde_json::Map<_, _> = files.chain(others).map(entry).collect();
    let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": map });
    let text = serde_json::to_vec_pretty(&index).map_err(|e| DataError::format(&path, e))?;
    write_synced(&path, &text)
}

/// Sizes and hashes of files that several processes wrote, which these share out among them.
fn hashes(folder: &Path, files: &[(Part, TensorWriter)], together: &Together) -> Result<Vec<u8>, DataError> {
    let mut own = Vec::new();
    for (_, (part, writer)) in files.iter().enumerate().filter(|(i, _)| i % together.count() == together.number()) {
        own.push(Part { blake3: writer.read_back()?.to_hex().to_string(), ..part.clone() });
    }
    serde_json::to_vec(&own).map_err(|e| DataError::format(folder, e))
}
