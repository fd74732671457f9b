//! The rank table that HCCL reads: which rank runs on which device of which server. Version 1.0 for A2, 1.2 with super
//! pods for A3. (hccl/docs/zh/user_guide)
//!
//! Addresses of devices are known on the machines alone: `hccn_tool -i <device> -ip -g` prints them.

use std::str::FromStr;

use serde_json::{Value, json};

use crate::soc::Series;

/// A server: `NAME`, `NAME=IP`, and for super pods `NAME@POD` or `NAME=IP@POD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    pub ip: Option<String>,
    pub pod: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("`{0}` is no host; write NAME, NAME=IP, or NAME=IP@POD, the name of at most 64 letters")]
    Text(String),
    #[error("the host `{0}` is listed twice")]
    Twice(String),
    #[error("{ranks} ranks need {} hosts of {devices} devices, and {hosts} are listed", ranks.div_ceil(*devices))]
    Few { ranks: usize, devices: usize, hosts: usize },
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let (rest, pod) = text.trim().split_once('@').unwrap_or((text.trim(), "0"));
        let (name, ip) = rest.split_once('=').map_or((rest, None), |(name, ip)| (name, Some(ip)));
        let plain = |t: &str| !t.is_empty() && t.len() <= 64 && !t.contains(['=', '@', ' ', '"']);
        if !plain(name) || !plain(pod) || ip.is_some_and(|ip| ip.parse::<std::net::IpAddr>().is_err()) {
            return Err(HostError::Text(text.trim().into()));
        }
        Ok(Self { name: name.into(), ip: ip.map(Into::into), pod: pod.into() })
    }
}

/// Ranks fill the servers in the order in which they are listed; without any, servers are made up.
pub fn table(ranks: usize, series: Series, hosts: &[Host]) -> Result<Value, HostError> {
    let devices = series.devices_per_server();
    let needed = ranks.div_ceil(devices);
    let made_up: Vec<Host> =
        (0..needed).map(|i| Host { name: format!("node_{i}"), ip: None, pod: "0".into() }).collect();
    let hosts = if hosts.is_empty() { &made_up } else { hosts };
    if let Some(twice) = hosts.iter().enumerate().find(|(i, h)| hosts[..*i].iter().any(|o| o.name == h.name)) {
        return Err(HostError::Twice(twice.1.name.clone()));
    }
    if hosts.len() < needed {
        return Err(HostError::Few { ranks, devices, hosts: hosts.len() });
    }
    let used = &hosts[..needed];
    let servers: Vec<Value> = used
        .iter()
        .enumerate()
        .map(|(i, host)| server(host, i * devices, ranks.min((i + 1) * devices), series))
        .collect();
    let mut table = json!({
        "status": "completed",
        "version": if series == Series::A3 { "1.2" } else { "1.0" },
        "server_count": servers.len().to_string(),
        "server_list": servers,
    });
    if series == Series::A3 {
        table["super_pod_list"] = pods(used).into();
    }
    Ok(table)
}

fn server(host: &Host, first: usize, end: usize, series: Series) -> Value {
    let devices: Vec<Value> = (first..end)
        .map(|rank| {
            let id = rank - first;
            let mut device = json!({
                "device_id": id.to_string(),
                "device_ip": format!("<address of device {id} of {}>", host.name),
                "rank_id": rank.to_string(),
            });
            if series == Series::A3 {
                device["super_device_id"] = format!("<super device id of device {id} of {}>", host.name).into();
            }
            device
        })
        .collect();
    let mut server = json!({ "server_id": host.name, "device": devices });
    if series == Series::A3 {
        let ip = host.ip.clone().unwrap_or_else(|| format!("<address of {}>", host.name));
        server["host_ip"] = ip.into();
    }
    server
}

fn pods(hosts: &[Host]) -> Vec<Value> {
    let mut pods: Vec<&str> = vec![];
    for host in hosts {
        if !pods.contains(&host.pod.as_str()) {
            pods.push(&host.pod);
        }
    }
    pods.into_iter()
        .map(|pod| {
            let own = hosts.iter().filter(|h| h.pod == *pod).map(|h| json!({ "server_id": h.name }));
            json!({ "super_pod_id": pod, "server_list": own.collect::<Vec<_>>() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Vec<Host> {
        text.split(',').map(|h| h.parse().expect("a host")).collect()
    }

    #[test]
    fn servers_are_filled_in_order() {
        let table = table(10, Series::A2, &hosts("a,b=10.0.0.2")).expect("a table");
        assert_eq!((&table["version"], &table["server_count"]), (&json!("1.0"), &json!("2")));
        assert_eq!(table["server_list"][0]["device"].as_array().map(Vec::len), Some(8));
        let last = &table["server_list"][1]["device"][1];
        assert_eq!((&last["device_id"], &last["rank_id"]), (&json!("1"), &json!("9")));
        assert_eq!(table.get("super_pod_list"), None);
    }

    #[test]
    fn super_pods_list_their_servers() {
        let table = table(40, Series::A3, &hosts("a=10.0.0.1@0,b@0,c@1")).expect("a table");
        assert_eq!((&table["version"], &table["server_count"]), (&json!("1.2"), &json!("3")));
        assert_eq!(table["server_list"][0]["host_ip"], "10.0.0.1");
        assert!(table["server_list"][0]["device"][15]["super_device_id"].is_string());
        let pods = json!([
            { "super_pod_id": "0", "server_list": [{ "server_id": "a" }, { "server_id": "b" }] },
            { "super_pod_id": "1", "server_list": [{ "server_id": "c" }] },
        ]);
        assert_eq!(table["super_pod_list"], pods);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(table(9, Series::A2, &hosts("a")), Err(HostError::Few { ranks: 9, devices: 8, hosts: 1 }));
        assert_eq!(table(9, Series::A2, &hosts("a,a")), Err(HostError::Twice("a".into())));
        for text in ["", "a=b", "a b", "=1.2.3.4", "a@", "a=1.2.3"] {
            assert_eq!(text.parse::<Host>(), Err(HostError::Text(text.into())));
        }
    }
}
