//! Weights in FP8 with a scale for each block: multiplied out in f32 as they are read.

use safetensors::Dtype;

use crate::convert::{ConvertError, convert};
use crate::tensors::{ReadError, TensorView};
use types::DType;

/// The scales of a tensor, by blocks of rows and columns of its last two axes.
pub struct Scales {
    values: Vec<f32>,
    block: [usize; 2],
    rows: usize,
    columns: usize,
}

/// Whether a file's type has eight bits of which a scale makes a weight.
pub fn is_fp8(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2)
}

/// The name of the tensor that holds the scales of another.
pub fn scale_name(name: &str) -> String {
    format!("{name}_scale_inv")
}

impl Scales {
    /// Reads the scales of a tensor of this shape.
    pub fn read(scale: &TensorView<'_>, shape: &[usize], block: [usize; 2]) -> Result<Self, ReadError> {
        let [outer @ .., rows, columns] = shape else { return Err(ReadError::Scales(scale.text())) };
        let (blocks, rest) = (rows.div_ceil(block[0]), columns.div_ceil(block[1]));
        let expect: Vec<usize> = outer.iter().copied().chain([blocks, rest]).collect();
        if scale.shape != expect {
            let [down, across] = block;
            return Err(ReadError::Scales(format!(
                "{}, and {expect:?} is needed for blocks of {down} x {across}, as `weight_block_size` in the config's \
                 quantization_config says, or 128 x 128 where it does not",
                scale.text()
            )));
        }
        let mut bytes = vec![0; expect.iter().product::<usize>() * 4];
        convert(scale.dtype, &scale.data()?, DType::F32, &mut bytes)?;
        let (values, _) = bytes.as_chunks::<4>();
        let values = values.iter().map(|v| f32::from_le_bytes(*v)).collect();
        Ok(Self { values, block, rows: *rows, columns: *columns })
    }

    /// Multiplies elements that follow each other from `first` on by their scales.
    fn multiply(&self, first: usize, values: &mut [f32]) {
        let across = self.columns.div_ceil(self.block[1]);
        let down = self.rows.div_ceil(self.block[0]);
        let mut at = 0;
        while at < values.len() {
            let element = first + at;
            let (row, column) = (element / self.columns, element % self.columns);
            let (outer, row) = (row / self.rows, row % self.rows);
            let scale = self.values[(outer * down + row / self.block[0]) * across + column / self.block[1]];
            // To the end of the block in this row.
            let more = (self.block[1] - column % self.block[1]).min(self.columns - column).min(values.len() - at);
            values[at..at + more].iter_mut().for_each(|v| *v *= scale);
            at += more;
        }
    }

    /// Writes elements that follow each other from `first` on to `out`, multiplied in f32 and rounded once.
    pub fn convert(
        &self,
        dtype: Dtype,
        first: usize,
        bytes: &[u8],
        to: DType,
        out: &mut [u8],
    ) -> Result<(), ConvertError> {
        let mut values: Vec<f32> = match dtype {
            Dtype::F8_E5M2 => bytes.iter().map(|b| half::f16::from_bits(u16::from(*b) << 8).to_f32()).collect(),
            _ => bytes.iter().map(|b| e4m3(*b)).collect(),
        };
        self.multiply(first, &mut values);
        let wide: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        convert(Dtype::F32, &wide, to, out)
    }
}

/// `float8_e4m3fn`: a sign, four bits of exponent, three of fraction; no infinities, and NaN where all bits are set.
fn e4m3(bits: u8) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let size = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction * 2f32.powi(-9),
        _ => (1.0 + fraction / 8.0) * 2f32.powi(exponent - 7),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bits_are_read_as_torch_reads_them() {
        // torch.tensor(bits, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
        let expect = [
            (0x00, 0.0),
            (0x01, 0.001_953_125),
            (0x07, 0.013_671_875),
            (0x08, 0.015_625),
            (0x38, 1.0),
            (0x3b, 1.375),
            (0x7e, 448.0),
            (0xc5, -3.25),
            (0xfe, -448.0),
            (0x87, -0.013_671_875),
        ];
        for (bits, value) in expect {
            assert_eq!(e4m3(bits), value, "{bits:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
    }

    #[test]
    fn each_block_has_its_scale() {
        let scales = Scales { values: (1..=8).map(|v| v as f32).collect(), block: [2, 3], rows: 3, columns: 4 };
        let mut values = vec![1.0; 24];
        scales.multiply(0, &mut values);
        let expect = [1, 1, 1, 2, 1, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5, 6, 5, 5, 5, 6, 7, 7, 7, 8].map(|v| v as f32);
        assert_eq!(values, expect);
        let mut values = vec![1.0; 7];
        scales.multiply(10, &mut values);
        assert_eq!(values, expect[10..17]);
    }
}
