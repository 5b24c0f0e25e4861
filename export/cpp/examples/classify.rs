//! classify_rs: the likeliest class of a PPM file (P6) at one lambda, in Rust, through the C interface of floats_rt. It
//! needs no crate: rustc --edition 2021 -L FOLDER classify.rs -o classify_rs, where FOLDER holds
//! libfloats_rt.so; LD_LIBRARY_PATH=FOLDER finds it when the program starts.
use std::error::Error;
use std::ffi::{CStr, CString};
use std::os::raw::{c_char, c_void};
use std::ptr::{null, null_mut};
use std::str::from_utf8;

#[repr(C)]
struct ImageView {
    data: *const u8,
    height: usize,
    width: usize,
    stride: usize,
    colours: i32,
}
const RGB: i32 = 0;

#[link(name = "floats_rt")]
extern "C" {
    fn floats_rt_load(bundle: *const c_char, options: *const c_void, model: *mut *mut c_void) -> i32;
    fn floats_rt_free(model: *mut c_void);
    fn floats_rt_set_lambda(model: *mut c_void, lambda: f32) -> i32;
    fn floats_rt_infer_images(m: *mut c_void, images: *const ImageView, n: usize, to: *mut f32, size: usize) -> i32;
    fn floats_rt_label_count(model: *const c_void) -> usize;
    fn floats_rt_label(model: *const c_void, index: usize) -> *const c_char;
    fn floats_rt_last_error() -> *const c_char;
}

/// The width and height of a picture, and its pixels, red first.
fn read_ppm(path: &str) -> Result<(usize, usize, Vec<u8>), Box<dyn Error>> {
    let file = std::fs::read(path)?;
    let parts: Vec<&[u8]> = file.splitn(5, u8::is_ascii_whitespace).collect();
    if let [b"P6", width, height, b"255", pixels] = parts[..] {
        let (width, height): (usize, usize) = (from_utf8(width)?.parse()?, from_utf8(height)?.parse()?);
        if pixels.len() == 3 * width * height {
            return Ok((width, height, pixels.to_vec()));
        }
    }
    Err("the image has a comment, or is no PPM file (P6) of 8 bits".into())
}

/// Frees what it holds.
struct Model(*mut c_void);

impl Drop for Model {
    fn drop(&mut self) {
        unsafe { floats_rt_free(self.0) }
    }
}

unsafe fn check(status: i32) -> Result<(), String> {
    match status {
        0 => Ok(()),
        _ => Err(CStr::from_ptr(floats_rt_last_error()).to_string_lossy().into()),
    }
}

unsafe fn classify(bundle: &str, image: &str, lambda: f32) -> Result<String, Box<dyn Error>> {
    let bundle = CString::new(bundle)?;
    let (width, height, pixels) = read_ppm(image)?;
    let view = ImageView { data: pixels.as_ptr(), height, width, stride: 0, colours: RGB };
    let mut model = Model(null_mut());
    check(floats_rt_load(bundle.as_ptr(), null(), &mut model.0))?;
    check(floats_rt_set_lambda(model.0, lambda))?;
    let mut logits = vec![0.0; floats_rt_label_count(model.0)];
    check(floats_rt_infer_images(model.0, &view, 1, logits.as_mut_ptr(), logits.len()))?;
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).ok_or("there are no classes")?;
    Ok(CStr::from_ptr(floats_rt_label(model.0, best)).to_string_lossy().into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.len() != 4 {
        return Err("usage: classify_rs BUNDLE IMAGE.ppm LAMBDA".into());
    }
    println!("{}", unsafe { classify(&arguments[1], &arguments[2], arguments[3].parse()?) }?);
    Ok(())
}
