//! A mirror on the host of a device's persistent buffers, between runs.

use std::sync::{Arc, OnceLock};

use plan::Buffer;

use crate::{Device, DeviceError};

pub struct Mirror {
    device: Arc<dyn Device>,
    /// By buffer; empty for those that nobody asked for since the last run.
    buffers: Vec<OnceLock<Vec<u8>>>,
    /// The one that may differ from the device's.
    changed: Option<usize>,
}

impl Mirror {
    pub fn new(device: Arc<dyn Device>, count: usize) -> Self {
        Self { device, buffers: (0..count).map(|_| OnceLock::new()).collect(), changed: None }
    }

    pub fn read(&self, index: usize, buffer: &Buffer) -> Result<&[u8], DeviceError> {
        if let Some(bytes) = self.buffers[index].get() {
            return Ok(bytes);
        }
        let mut bytes = vec![0; buffer.bytes as usize];
        self.device.enter()?;
        self.device.read(buffer.offset, &mut bytes)?;
        Ok(self.buffers[index].get_or_init(|| bytes))
    }

    /// What is changed goes to the device when the next buffer is changed, or the next run begins: the host needs room for
    /// one at a time.
    pub fn write(&mut self, index: usize, buffers: &[Buffer]) -> Result<&mut [u8], DeviceError> {
        if self.changed != Some(index) {
            self.flush(buffers)?;
            self.read(index, &buffers[index])?;
            self.changed = Some(index);
        }
        Ok(self.buffers[index].get_mut().map_or(&mut [], Vec::as_mut_slice))
    }

    /// Before a run, which changes the buffers on the device.
    pub fn clear(&mut self, buffers: &[Buffer]) -> Result<(), DeviceError> {
        self.flush(buffers)?;
        self.buffers.iter_mut().for_each(|b| drop(b.take()));
        Ok(())
    }

    fn flush(&mut self, buffers: &[Buffer]) -> Result<(), DeviceError> {
        let Some(index) = self.changed.take() else { return Ok(()) };
        if let Some(bytes) = self.buffers[index].take() {
            self.device.enter()?;
            self.device.write(&bytes, buffers[index].offset)?;
        }
        Ok(())
    }
}
