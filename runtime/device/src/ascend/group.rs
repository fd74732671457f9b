//! A rank's communicators: one of HCCL's for each group of the plan and one for each way between two ranks that messages
//! take, as the plan gives each of them a lane. Their collectives go on the lanes' streams.
//!
//! The ranks meet, and learn of each other's failures, through another communicator, that of threads or processes.
#![allow(unsafe_code, reason = "calls of CANN's C interface, with addresses on the device")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use comm::{Area, Collective, CommError, Communicator, Kind, Operation, Whereabouts};
use plan::{Collect, CollectKind, Op, Plan, Reduce, ReduceKind};
use runtime_core::Device;
use types::{DType, Name};

use super::abi::{
    CONFIG_MAGIC, CONFIG_NOT_SET, CONFIG_VERSION, CommConfig, HCCL_BFP16, HCCL_FP16, HCCL_FP32, HCCL_FP64, HCCL_INT32,
    HCCL_INT64, HCCL_MAX, HCCL_RECV, HCCL_SEND, HCCL_SUM, HCCL_UINT8, Hccl, MEMCPY_DEVICE_TO_DEVICE, Pointer, RootInfo,
    SendRecvItem,
};
use super::device::Mark;
use super::{AscendDevice, Cann, CannError};

/// What a communicator is for: HCCL's own memory is counted for each, so none is made but those that the plan needs, and
/// none with members that have no use for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Purpose {
    group: Vec<Name>,
    /// For messages: the positions of sender and receiver.
    way: Option<[usize; 2]>,
}

pub struct AscendCommunicator {
    device: Arc<AscendDevice>,
    others: Arc<dyn Communicator>,
    /// By ranks, and whether it is for messages from the first to the second.
    groups: BTreeMap<(Vec<usize>, bool), Arc<Group>>,
}

/// A communicator of HCCL's.
struct Group {
    cann: Arc<Cann>,
    handle: Pointer,
}

// SAFETY: a handle of CANN's, which it takes from any thread that has entered the context.
unsafe impl Send for Group {}
unsafe impl Sync for Group {}

impl AscendCommunicator {
    /// Makes all communicators of the plan, with all other ranks at the same time.
    pub fn new(device: Arc<AscendDevice>, plan: &Plan, others: Arc<dyn Communicator>) -> Result<Self, CommError> {
        let (all, own, next) = purposes(plan, others.rank())?;
        device.enter().map_err(|e| CommError::Device(e.to_string()))?;
        let mut made = Self { device, others, groups: BTreeMap::new() };
        // All ranks in one order, so that none waits for one that waits for it.
        for (n, purpose) in all.iter().enumerate().filter(|(_, p)| own.contains(p)) {
            made.meet(plan, next + n as u32, purpose)?;
        }
        Ok(made)
    }

    /// The first member tells the others how it is found, and all of them make one communicator.
    fn meet(&mut self, plan: &Plan, id: u32, purpose: &Purpose) -> Result<(), CommError> {
        let cann = self.device.cann().clone();
        let hccl = table(&cann)?;
        let mesh = &plan.header.mesh;
        let mut root = RootInfo { internal: [0; 4108] };
        let mut told = root;
        let area = |info: &mut RootInfo| vec![Area { at: info.internal.as_mut_ptr(), bytes: info.internal.len() }];
        let here = self.others.rank();
        let operation = |kind, areas| Operation::new(&collect(id, kind, &purpose.group), mesh, here, 0, areas);
        let peer = |position: usize| plan::Affine::constant(position as i64);
        let broadcast = CollectKind::Broadcast { root: peer(0) };
        let (ranks, position, exchange) = match purpose.way {
            None => {
                let exchange = operation(broadcast, (area(&mut root), area(&mut told)))?;
                (exchange.group.clone(), exchange.position, exchange)
            }
            Some([from, to]) => {
                let Operation { group, position, .. } = operation(broadcast, (vec![], vec![]))?;
                let (kind, areas) = if position == from {
                    (CollectKind::Send { peer: peer(to) }, (area(&mut root), vec![]))
                } else {
                    (CollectKind::Receive { peer: peer(from) }, (vec![], area(&mut told)))
                };
                (vec![group[from], group[to]], usize::from(position != from), operation(kind, areas)?)
            }
        };
        if position == 0 {
            // SAFETY: the pointer is ours.
            cann.hccl("HcclGetRootInfo", unsafe { (hccl.HcclGetRootInfo)(&mut root) }).map_err(device)?;
            told = root;
        }
        let exchange = self.others.prepare(exchange)?;
        // SAFETY: both areas are ours, and nobody touches them until the return.
        unsafe { exchange.run() }?;
        let axes = purpose.group.iter().map(Name::as_str).collect::<Vec<_>>().join(".");
        let members = ranks.iter().map(ToString::to_string).collect::<Vec<_>>();
        let config = config(&format!("{axes}.{}", members.join(if purpose.way.is_some() { ">" } else { "-" })));
        let mut handle = std::ptr::null_mut();
        let (count, position) = (ranks.len() as u32, position as u32);
        // SAFETY: all pointers are ours and outlive the call.
        let code = unsafe { (hccl.HcclCommInitRootInfoConfig)(count, &told, position, &config, &mut handle) };
        cann.hccl("HcclCommInitRootInfoConfig", code).map_err(device)?;
        self.groups.insert((ranks, purpose.way.is_some()), Arc::new(Group { cann, handle }));
        Ok(())
    }
}
/// All communicators of a plan, those of this rank, and the first id that no collective has.
fn purposes(plan: &Plan, rank: usize) -> Result<(BTreeSet<Purpose>, BTreeSet<Purpose>, u32), CommError> {
    let mesh = &plan.header.mesh;
    let (mut all, mut own, mut next) = (BTreeSet::new(), BTreeSet::new(), 0);
    for (c, class) in plan.classes.iter().enumerate() {
        // The ranks of a class send and receive alike.
        let is_own = class.ranks.contain(mesh, &mesh.coordinates(rank));
        let first = || (0..mesh.world()).find(|&r| class.ranks.contain(mesh, &mesh.coordinates(r)));
        let Some(like) = is_own.then_some(rank).or_else(first) else { continue };
        let bodies = plan.programs.iter().filter_map(|p| p.bodies.get(c));
        for instruction in bodies.flat_map(|b| &b.instructions) {
            let Op::Collect(known) = &instruction.op else { continue };
            let Collect { id, kind, group, .. } = &**known;
            next = next.max(id + 1);
            let way = match kind {
                CollectKind::Send { .. } | CollectKind::Receive { .. } => {
                    let message = collect(*id, kind.clone(), group);
                    let message = Operation::new(&message, mesh, like, 0, (vec![], vec![]))?;
                    match message.kind {
                        Kind::Send { to } => Some([message.position, to]),
                        Kind::Receive { from } => Some([from, message.position]),
                        _ => None,
                    }
                }
                _ => None,
            };
            let purpose = Purpose { group: group.clone(), way };
            if is_own {
                own.insert(purpose.clone());
            }
            all.insert(purpose);
        }
    }
    Ok((all, own, next))
}

fn collect(id: u32, kind: CollectKind, group: &[Name]) -> Collect {
    Collect { id, kind, group: group.to_vec(), from: vec![], to: vec![], why: "communicators of a group".into() }
}

/// Sums are to be the same in every run.
fn config(name: &str) -> CommConfig {
    let mut text = [0; 128];
    // The last byte ends the text.
    text[..127].iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    CommConfig {
        size: size_of::<CommConfig>(),
        magic: CONFIG_MAGIC,
        version: CONFIG_VERSION,
        reserved: 0,
        buffer_size: CONFIG_NOT_SET,
        deterministic: 1,
        name: text,
        udi: [0; 128],
        expansion_mode: 0,
        traffic_class: CONFIG_NOT_SET,
        service_level: CONFIG_NOT_SET,
        world_rank: 0,
        job: 0,
    }
}

fn device(error: CannError) -> CommError {
    CommError::Device(error.to_string())
}

fn table(cann: &Cann) -> Result<&Hccl, CommError> {
    cann.hccl.as_ref().ok_or_else(|| CommError::Device("HCCL was not opened".into()))
}

impl Communicator for AscendCommunicator {
    fn rank(&self) -> usize {
        self.others.rank()
    }

    fn world(&self) -> usize {
        self.others.world()
    }

    fn prepare(&self, operation: Operation) -> Result<Box<dyn Collective>, CommError> {
        let malformed = |why: &str| CommError::Malformed { id: operation.id, why: why.into() };
        let Operation { kind, group, position, .. } = &operation;
        let purpose = match kind {
            Kind::Send { to } => (vec![group[*position], group[*to]], true),
            Kind::Receive { from } => (vec![group[*from], group[*position]], true),
            _ => (group.clone(), false),
        };
        let group = self.groups.get(&purpose);
        let group = group.ok_or_else(|| malformed("its group has no communicator"))?.clone();
        if let Kind::AllReduce(reduce) | Kind::ReduceScatter(reduce) = operation.kind {
            element(reduce.dtype).ok_or_else(|| malformed(&format!("HCCL does not reduce {}", reduce.dtype)))?;
        }
        let mark = self.device.mark(operation.lane as usize, operation.id).map_err(device)?;
        Ok(Box::new(Enqueued { device: self.device.clone(), group, operation, mark }))
    }

    fn attach(&self, whereabouts: Arc<dyn Whereabouts>) {
        self.others.attach(whereabouts);
    }

    fn fail(&self, why: &str) {
        self.others.fail(why);
    }

    fn leave(&self) {
        self.others.leave();
    }

    fn is_alone(&self) -> bool {
        self.others.is_alone()
    }

    fn failure(&self) -> Option<CommError> {
        self.others.failure()
    }
}

impl Drop for AscendCommunicator {
    fn drop(&mut self) {
        // Groups go with the device's context; that it cannot be entered any more is told by nothing here.
        let _ = self.device.enter();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(hccl) = &self.cann.hccl {
            // SAFETY: made in `meet`; the collectives that use it share it.
            unsafe { (hccl.HcclCommDestroy)(self.handle) };
        }
    }
}

/// A collective that puts itself on its lane's stream.
struct Enqueued {
    device: Arc<AscendDevice>,
    group: Arc<Group>,
    operation: Operation,
    mark: Arc<Mark>,
}

fn element(dtype: DType) -> Option<(i32, usize)> {
    let id = match dtype {
        DType::F64 => HCCL_FP64,
        DType::F32 => HCCL_FP32,
        DType::BF16 => HCCL_BFP16,
        DType::F16 => HCCL_FP16,
        DType::I64 => HCCL_INT64,
        DType::I32 => HCCL_INT32,
        DType::Work | DType::Bool => return None,
    };
    Some((id, dtype.bytes()))
}

fn reduction(reduce: &Reduce) -> (i32, usize, i32) {
    let (id, bytes) = element(reduce.dtype).unwrap_or((HCCL_UINT8, 1));
    let op = match reduce.kind {
        ReduceKind::Sum => HCCL_SUM,
        ReduceKind::Max => HCCL_MAX,
    };
    (id, bytes, op)
}

impl Collective for Enqueued {
    /// Returns when the collective is on the stream. What the caller promises holds until the stream has passed, since
    /// whoever touches the memory next is on this stream or waits for an event behind it.
    unsafe fn run(&self) -> Result<(), CommError> {
        // SAFETY: says the caller.
        unsafe { self.submit() }?;
        self.device.set(self.operation.lane as usize, &self.mark).map_err(device)
    }
}

impl Enqueued {
    unsafe fn submit(&self) -> Result<(), CommError> {
        let (cann, Operation { from, to, lane, .. }) = (&self.group.cann, &self.operation);
        let (hccl, comm, lane) = (table(cann)?, self.group.handle, *lane as usize);
        let stream = self.device.stream(lane);
        let at = |area: &Area| area.at.cast();
        let pairs = || from.iter().zip(to);
        let checked = |call, code| cann.hccl(call, code).map_err(device);
        // SAFETY: the areas are in the device's memory, of the sizes that `Operation::new` compared, and nothing conflicts
        // with the collective until the stream has passed, says the caller; communicator and stream are alive.
        unsafe {
            match &self.operation.kind {
                Kind::AllReduce(reduce) => pairs().try_for_each(|(f, t)| {
                    let (dtype, bytes, op) = reduction(reduce);
                    let count = (f.bytes / bytes) as u64;
                    checked("HcclAllReduce", (hccl.HcclAllReduce)(at(f), at(t), count, dtype, op, comm, stream))
                }),
                Kind::ReduceScatter(reduce) => pairs().try_for_each(|(f, t)| {
                    let (dtype, bytes, op) = reduction(reduce);
                    let count = (t.bytes / bytes) as u64;
                    checked("HcclReduceScatter", (hccl.HcclReduceScatter)(at(f), at(t), count, dtype, op, comm, stream))
                }),
                Kind::AllGather => pairs().try_for_each(|(f, t)| {
                    let count = f.bytes as u64;
                    checked("HcclAllGather", (hccl.HcclAllGather)(at(f), at(t), count, HCCL_UINT8, comm, stream))
                }),
                Kind::AllToAll => pairs().try_for_each(|(f, t)| {
                    let count = (f.bytes / self.operation.group.len()) as u64;
                    let (f, t, byte) = (f.at.cast_const().cast(), t.at.cast_const().cast(), HCCL_UINT8);
                    checked("HcclAlltoAll", (hccl.HcclAlltoAll)(f, count, byte, t, count, byte, comm, stream))
                }),
                Kind::Broadcast { root } => pairs().try_for_each(|(f, t)| {
                    if *root == self.operation.position {
                        self.device.copy_on(lane, at(t), at(f), f.bytes, MEMCPY_DEVICE_TO_DEVICE).map_err(device)?;
                    }
                    let (count, root) = (t.bytes as u64, *root as u32);
                    checked("HcclBroadcast", (hccl.HcclBroadcast)(at(t), count, HCCL_UINT8, root, comm, stream))
                }),
                Kind::Permute { shifts } => {
                    let mut items = self.items(shifts);
                    let count = items.len() as u32;
                    checked("HcclBatchSendRecv", (hccl.HcclBatchSendRecv)(items.as_mut_ptr(), count, comm, stream))
                }
                // Of the two members, the sender is the first.
                Kind::Send { .. } => from.iter().try_for_each(|f| {
                    let count = f.bytes as u64;
                    checked("HcclSend", (hccl.HcclSend)(at(f), count, HCCL_UINT8, 1, comm, stream))
                }),
                Kind::Receive { .. } => to.iter().try_for_each(|t| {
                    let count = t.bytes as u64;
                    checked("HcclRecv", (hccl.HcclRecv)(at(t), count, HCCL_UINT8, 0, comm, stream))
                }),
            }
        }
    }

    /// Opposite sends in one call, so that neither waits for the other.
    fn items(&self, shifts: &[i64]) -> Vec<SendRecvItem> {
        let Operation { from, to, group, position, .. } = &self.operation;
        let (ranks, here) = (group.len() as i64, *position as i64);
        let item = |kind, area: &Area, peer: i64| SendRecvItem {
            kind,
            buffer: area.at.cast(),
            count: area.bytes as u64,
            dtype: HCCL_UINT8,
            remote: peer.rem_euclid(ranks) as u32,
        };
        let sends = from.iter().zip(shifts).map(|(area, shift)| item(HCCL_SEND, area, here + shift));
        let receives = to.iter().zip(shifts).map(|(area, shift)| item(HCCL_RECV, area, here - shift));
        sends.chain(receives).collect()
    }
}
