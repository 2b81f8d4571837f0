//! What a kernel sees of its dispatch: parameters, inputs, and the one tile of each output that it owns.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use bytemuck::Pod;

use crate::{Access, Tiling};

/// A kernel on the CPU device: runs one workgroup.
pub type CpuKernel = fn(&mut Invocation<'_>);

/// A binding resolved to memory: `len` bytes from `ptr`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) ptr: *mut u8,
    pub(crate) len: usize,
    pub(crate) access: Access,
}

/// One workgroup of a dispatch.
pub struct Invocation<'a> {
    pub(crate) group: usize,
    pub(crate) params: &'a [u8],
    pub(crate) bindings: &'a [Bound],
    /// Bit `i` is set once the tile of binding `i` has been handed out.
    pub(crate) taken: u32,
}

impl<'a> Invocation<'a> {
    /// Index of this workgroup.
    pub fn group(&self) -> usize {
        self.group
    }

    /// The parameters of the dispatch.
    ///
    /// # Panics
    /// When the dispatch was recorded with parameters of another size: a broken contract of the kernel's own crate.
    pub fn params<P: Pod>(&self) -> P {
        if self.params.len() != size_of::<P>() {
            crate::contract_broken("a kernel reads the parameters it was recorded with");
        }
        bytemuck::pod_read_unaligned(self.params)
    }

    /// Binding `index` as elements, read only.
    ///
    /// # Panics
    /// When the binding is written by this dispatch or not aligned for `T`.
    pub fn input<T: Pod>(&self, index: usize) -> &'a [T] {
        let bound = self.bindings[index];
        if bound.access != Access::Read {
            crate::contract_broken("an input is a binding that the dispatch only reads");
        }
        check_aligned::<T>(bound.ptr);
        // SAFETY: the range lies inside a live buffer (checked when it was recorded), the pointer is aligned, any
        // bytes are a valid `T`, and the encoder refused a dispatch that writes what it also reads.
        unsafe { std::slice::from_raw_parts(bound.ptr.cast::<T>(), bound.len / size_of::<T>()) }
    }

    /// This workgroup's tile of binding `index`.
    ///
    /// # Panics
    /// When the binding is not written by this dispatch, when its tile was taken already, or when the matrix of its
    /// tiling does not fit the slice with elements of this size.
    pub fn output<T: Pod>(&mut self, index: usize) -> Tile<'a, T> {
        let bound = self.bindings[index];
        let Access::Write(tiling) = bound.access else {
            crate::contract_broken("an output is a binding that the dispatch writes")
        };
        if index >= 32 || self.taken & (1 << index) != 0 {
            crate::contract_broken("a workgroup takes each of its output tiles once");
        }
        self.taken |= 1 << index;
        check_aligned::<T>(bound.ptr);
        let Tiling { rows, cols, tile_rows, tile_cols } = tiling;
        if rows * cols * size_of::<T>() > bound.len {
            crate::contract_broken("the matrix of a tiling lies inside its slice");
        }
        let (down, right) = (self.group / tiling.across().max(1), self.group % tiling.across().max(1));
        let (first_row, first_col) = ((down * tile_rows).min(rows), (right * tile_cols).min(cols));
        Tile {
            // SAFETY: `first_row * cols + first_col` is at most `rows * cols`, which lies inside the slice.
            ptr: unsafe { bound.ptr.cast::<T>().add(first_row * cols + first_col) },
            rows: tile_rows.min(rows - first_row),
            cols: tile_cols.min(cols - first_col),
            stride: cols,
            first_row,
            first_col,
            owner: PhantomData,
        }
    }
}

fn check_aligned<T>(ptr: *mut u8) {
    if !ptr.addr().is_multiple_of(align_of::<T>()) {
        crate::contract_broken("a binding is aligned for the kernel's element type");
    }
}

/// The part of a written matrix that one workgroup owns: `rows × cols` elements, `stride` elements from row to row.
#[derive(Debug)]
pub struct Tile<'a, T> {
    ptr: *mut T,
    rows: usize,
    cols: usize,
    stride: usize,
    first_row: usize,
    first_col: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: a tile is an exclusive borrow of its elements, like `&mut [T]`.
unsafe impl<T: Send> Send for Tile<'_, T> {}

impl<'a, T> Tile<'a, T> {
    /// A tile over columns `cols` of a matrix whose rows are `stride` elements long.
    ///
    /// # Panics
    /// When the columns leave the row.
    pub fn from_slice(matrix: &'a mut [T], stride: usize, cols: std::ops::Range<usize>) -> Self {
        assert!(cols.start <= cols.end && cols.end <= stride, "columns {cols:?} leave a row of {stride}");
        let rows = matrix.len().checked_div(stride).unwrap_or(0);
        Self {
            // SAFETY: the first column of the first row lies inside the matrix, or the tile is empty.
            ptr: if rows == 0 { matrix.as_mut_ptr() } else { unsafe { matrix.as_mut_ptr().add(cols.start) } },
            rows,
            cols: cols.len(),
            stride,
            first_row: 0,
            first_col: cols.start,
            owner: PhantomData,
        }
    }

    /// Rows of the tile.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the tile.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row of the matrix that the tile starts at.
    pub fn first_row(&self) -> usize {
        self.first_row
    }

    /// Column of the matrix that the tile starts at.
    pub fn first_col(&self) -> usize {
        self.first_col
    }

    /// Row `row` of the tile.
    ///
    /// # Panics
    /// When the tile has no such row.
    pub fn row(&self, row: usize) -> &[T] {
        assert!(row < self.rows, "row {row} of a tile of {} rows", self.rows);
        // SAFETY: the row lies inside the tile, and `&self` keeps writers out.
        unsafe { std::slice::from_raw_parts(self.ptr.add(row * self.stride), self.cols) }
    }

    /// Row `row` of the tile, to be written.
    ///
    /// # Panics
    /// When the tile has no such row.
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of a tile of {} rows", self.rows);
        // SAFETY: the row lies inside the tile, which is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(row * self.stride), self.cols) }
    }
}
