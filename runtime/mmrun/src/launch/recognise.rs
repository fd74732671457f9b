//! Launchers by the variables they set, in the order in which they are asked.

use std::io;
use std::str::FromStr;

use serde_json::Value;

use super::{Launch, Launcher};
use crate::failure::Failure;

/// The launch that the environment tells of. Sources of the names: torchrun's documentation ("Environment Variables"),
/// MindCluster's ("Environment Variables Used by MindCluster Components"), `man srun` ("OUTPUT ENVIRONMENT VARIABLES"),
/// Open MPI's FAQ ("environmental variables"), and for rank tables HCCL's guide and `RANK_ID` of CANN's reference.
pub fn recognise(
    env: impl Fn(&str) -> Option<String>,
    read: impl Fn(&str) -> io::Result<String>,
) -> Result<Option<Launch>, Failure> {
    let number = |name: &str| env(name).map(|text| number::<usize>(name, &text));
    let launch = |by, [rank, world, here]: [&str; 3]| -> Result<Option<Launch>, Failure> {
        let (Some(rank), Some(world)) = (number(rank), number(world)) else { return Ok(None) };
        let (rank, world, here) = (rank?, world?, number(here).transpose()?);
        if rank >= world {
            return Err(Failure::new(format!("{by} says that this is rank {rank} of {world}")));
        }
        Ok(Some(Launch { by, rank, world, here: here.unwrap_or(world) }))
    };
    // MindCluster's jobs have torchrun's variables too, with a mark of their own.
    let mind_cluster = env("MINDX_TASK_ID").is_some();
    let by = if mind_cluster { Launcher::MindCluster } else { Launcher::Torchrun };
    let in_order = [
        (by, ["RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"]),
        (Launcher::MindCluster, ["MS_NODE_RANK", "MS_WORKER_NUM", "MS_LOCAL_WORKER"]),
        // A batch script has a rank too, but only a step has this number of tasks.
        (Launcher::Slurm, ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS_PER_NODE"]),
        (Launcher::OpenMpi, ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"]),
    ];
    for (by, names) in in_order {
        if let Some(launch) = launch(by, names)? {
            return Ok(Some(launch));
        }
    }
    let Some(path) = env("RANK_TABLE_FILE") else { return Ok(None) };
    let text = read(&path).map_err(|e| Failure::new(format!("{path} (RANK_TABLE_FILE): {e}")))?;
    let world = ranks_of_table(&text).map_err(|what| Failure::new(format!("{path} is no rank table: {what}")))?;
    let Some(rank) = number("RANK_ID").transpose()? else {
        return Err(Failure::new(format!("{path} lists {world} ranks, and RANK_ID does not say which one this is")));
    };
    if rank >= world {
        return Err(Failure::new(format!("RANK_ID is {rank}, and {path} lists {world} ranks")));
    }
    Ok(Some(Launch { by: Launcher::RankTable, rank, world, here: world }))
}

fn number<T: FromStr>(name: &str, text: &str) -> Result<T, Failure> {
    let number = text.trim().parse();
    number.map_err(|_| Failure::new(format!("the variable {name} is `{text}`, where a number is expected")))
}

/// How many ranks a table of version 1.0 (servers) or 1.2 (super pods) lists.
fn ranks_of_table(text: &str) -> Result<usize, String> {
    let table: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let field = |name: &str| table.get(name).and_then(Value::as_str).unwrap_or("missing");
    if !["1.0", "1.2"].contains(&field("version")) {
        return Err(format!("its version is {}, and this program reads 1.0 and 1.2", field("version")));
    }
    if field("status") != "completed" {
        return Err(format!("its status is {}, not completed", field("status")));
    }
    let servers = table.get("server_list").and_then(Value::as_array).ok_or("it has no server_list")?;
    let mut ranks = Vec::new();
    for server in servers {
        let devices = server.get("device").and_then(Value::as_array).ok_or("a server has no device list")?;
        for device in devices {
            let rank = device.get("rank_id").and_then(Value::as_str).and_then(|r| r.parse::<usize>().ok());
            ranks.push(rank.ok_or("a device has no rank_id")?);
        }
    }
    ranks.sort_unstable();
    match ranks.iter().enumerate().find(|(i, rank)| i != *rank) {
        Some((i, _)) => Err(format!("its rank_ids do not count from 0: {i} is missing or there twice")),
        None => Ok(ranks.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(env: &[(&str, &str)]) -> Result<Option<Launch>, String> {
        let table = |version: &str, device: &str| {
            let devices = |from: usize| {
                (from..from + 2).map(|r| format!(r#"{{"rank_id":"{r}"{device}}}"#)).collect::<Vec<_>>().join(",")
            };
            format!(
                r#"{{"status":"completed","version":"{version}","server_count":"2","server_list":[
                {{"server_id":"a","device":[{}]}},{{"server_id":"b","device":[{}]}}]}}"#,
                devices(0),
                devices(2)
            )
        };
        let read = |path: &str| match path {
            "a2.json" => Ok(table("1.0", r#","device_id":"0","device_ip":"192.168.1.6""#)),
            "a3.json" => Ok(table("1.2", r#","device_id":"0","super_device_id":"0""#)),
            "new.json" => Ok(table("9", "")),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let find = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        recognise(find, read).map_err(|failure| failure.to_string())
    }

    #[test]
    fn launchers_are_recognised_in_order() {
        let check = |env: &[(&str, &str)], expect: Option<(Launcher, usize, usize)>| {
            let expect = expect.map(|(by, rank, world)| Launch { by, rank, world, here: world });
            assert_eq!(ask(env), Ok(expect), "{env:?}");
        };
        let ompi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "4")];
        check(&[], None);
        check(&ompi, Some((Launcher::OpenMpi, 1, 4)));
        let local = [ompi[0], ompi[1], ("OMPI_COMM_WORLD_LOCAL_SIZE", "2")];
        assert_eq!(ask(&local).map(|l| l.map(|l| l.here)), Ok(Some(2)));
        check(&[("RANK", "3"), ("WORLD_SIZE", "8"), ompi[0], ompi[1]], Some((Launcher::Torchrun, 3, 8)));
        check(&[("RANK", "3"), ("WORLD_SIZE", "8"), ("MINDX_TASK_ID", "x")], Some((Launcher::MindCluster, 3, 8)));
        check(&[("MS_NODE_RANK", "0"), ("MS_WORKER_NUM", "2")], Some((Launcher::MindCluster, 0, 2)));
        check(&[("SLURM_PROCID", "5"), ("SLURM_STEP_NUM_TASKS", "6")], Some((Launcher::Slurm, 5, 6)));
        // A batch script is no step.
        check(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "6")], None);
        check(&[("RANK_TABLE_FILE", "a2.json"), ("RANK_ID", "3")], Some((Launcher::RankTable, 3, 4)));
        check(&[("RANK_TABLE_FILE", "a3.json"), ("RANK_ID", "0")], Some((Launcher::RankTable, 0, 4)));
    }

    #[test]
    fn launches_that_make_no_sense_are_refused() {
        let check = |env: &[(&str, &str)], expect: &str| {
            let error = ask(env).expect_err("refused");
            assert!(error.contains(expect), "{error}");
        };
        check(&[("RANK", "x"), ("WORLD_SIZE", "8")], "RANK is `x`");
        check(&[("RANK", "8"), ("WORLD_SIZE", "8")], "rank 8 of 8");
        check(&[("RANK_TABLE_FILE", "none.json"), ("RANK_ID", "0")], "none.json");
        check(&[("RANK_TABLE_FILE", "new.json"), ("RANK_ID", "0")], "version is 9");
        check(&[("RANK_TABLE_FILE", "a2.json")], "RANK_ID does not say");
        check(&[("RANK_TABLE_FILE", "a2.json"), ("RANK_ID", "4")], "lists 4 ranks");
    }
}
