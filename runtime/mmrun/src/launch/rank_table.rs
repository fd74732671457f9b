//! Rank tables: HCCL's files that list the ranks of a job.

use serde_json::Value;

/// How many ranks a table of version 1.0 (servers) or 1.2 (super pods) lists.
pub fn ranks(text: &str) -> Result<usize, String> {
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
