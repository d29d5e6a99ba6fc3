package codec

const maxSPS = 256 // bytes; usual are 10 to 60

// readSPS reports whether a sequence parameter set (H.264 section 7.3.2.1.1), without the header of
// its NAL unit, is one of which not a bit is left over.
func readSPS(unit []byte) bool {
	if len(unit) < 5 || len(unit) > maxSPS || unit[1]&3 != 0 || !knownLevel(unit[2]) {
		return false
	}
	var buf [maxSPS]byte
	r := bitReader{bytes: unescape(buf[:0], unit[3:])}
	if r.golomb() > 31 { // seq_parameter_set_id
		return false
	}
	switch unit[0] {
	case 66, 77, 88:
	case 100, 110, 122, 244, 44, 83, 86, 118, 128:
		if !skipChroma(&r) {
			return false
		}
	default:
		return false
	}
	if r.golomb() > 12 || !skipOrder(&r) { // log2_max_frame_num_minus4
		return false
	}
	if r.golomb() > 16 { // max_num_ref_frames
		return false
	}
	r.flag()                                // gaps_in_frame_num_value_allowed_flag
	const most = 1 << 10                    // macroblocks: 16384 pixels
	width, height := r.golomb(), r.golomb() // less 1
	if width >= most || height >= most {
		return false
	}
	if !r.flag() { // frame_mbs_only_flag
		r.flag() // mb_adaptive_frame_field_flag
	}
	r.flag()      // direct_8x8_inference_flag
	if r.flag() { // frame_cropping_flag
		for range 4 {
			r.golomb()
		}
	}
	if r.flag() && !skipVUI(&r) {
		return false
	}
	if !r.flag() || r.overrun { // rbsp_stop_one_bit
		return false
	}
	for r.left() > 0 {
		if r.flag() {
			return false
		}
	}
	return true
}

// unescape appends a NAL unit without its emulation prevention bytes (H.264 section 7.4.1).
func unescape(b, unit []byte) []byte {
	zeros := 0
	for _, v := range unit {
		if zeros >= 2 && v == 3 {
			zeros = 0
			continue
		}
		if zeros++; v != 0 {
			zeros = 0
		}
		b = append(b, v)
	}
	return b
}

// skipOrder reads over what sequence parameter sets say of the order of pictures.
func skipOrder(r *bitReader) bool {
	switch r.golomb() { // pic_order_cnt_type
	case 0:
		return r.golomb() <= 12 // log2_max_pic_order_cnt_lsb_minus4
	case 1:
		r.flag()   // delta_pic_order_always_zero_flag
		r.golomb() // offset_for_non_ref_pic
		r.golomb() // offset_for_top_to_bottom_field
		cycle := r.golomb()
		if cycle > 255 {
			return false
		}
		for range cycle {
			r.golomb()
		}
		return true
	case 2:
		return true
	}
	return false
}

// skipChroma reads over what sequence parameter sets of the high profiles say of colours.
func skipChroma(r *bitReader) bool {
	chroma := r.golomb()
	if chroma > 3 {
		return false
	}
	if chroma == 3 {
		r.flag() // separate_colour_plane_flag
	}
	if luma, chroma := r.golomb(), r.golomb(); luma > 6 || chroma > 6 { // bit depths
		return false
	}
	r.flag() // qpprime_y_zero_transform_bypass_flag
	if !r.flag() {
		return true
	}
	lists := 8
	if chroma == 3 {
		lists = 12
	}
	for i := range lists {
		if !r.flag() {
			continue
		}
		size := 16
		if i >= 6 {
			size = 64
		}
		last, next := int32(8), int32(8)
		for range size {
			if next != 0 {
				code := r.golomb()
				delta := int32(code+1) / 2
				if code%2 == 0 {
					delta = -delta
				}
				next = (last + delta + 256) % 256
			}
			if next != 0 {
				last = next
			}
		}
	}
	return !r.overrun
}

// skipVUI reads over video usability information (H.264 section E.1.1).
func skipVUI(r *bitReader) bool {
	if r.flag() { // aspect_ratio_info_present_flag
		const extended = 255
		if r.read(8) == extended {
			r.skip(32)
		}
	}
	if r.flag() { // overscan_info_present_flag
		r.flag()
	}
	if r.flag() { // video_signal_type_present_flag
		r.skip(4)
		if r.flag() { // colour_description_present_flag
			r.skip(24)
		}
	}
	if r.flag() { // chroma_loc_info_present_flag
		r.golomb()
		r.golomb()
	}
	if r.flag() { // timing_info_present_flag
		r.skip(65)
	}
	buffers := false
	for range 2 { // of NAL units, of their slices
		if r.flag() {
			buffers = true
			if !skipHRD(r) {
				return false
			}
		}
	}
	if buffers {
		r.flag() // low_delay_hrd_flag
	}
	r.flag()      // pic_struct_present_flag
	if r.flag() { // bitstream_restriction_flag
		r.flag()
		for range 6 {
			r.golomb()
		}
	}
	return !r.overrun
}

// skipHRD reads over parameters of a hypothetical decoder (H.264 section E.1.2).
func skipHRD(r *bitReader) bool {
	buffers := r.golomb() // less 1
	if buffers > 31 {
		return false
	}
	r.skip(8)
	for range buffers + 1 {
		r.golomb()
		r.golomb()
		r.flag()
	}
	r.skip(20)
	return true
}

// knownLevel reports whether level_idc is one of H.264 table A-1.
func knownLevel(idc byte) bool {
	switch idc {
	case 9, 10, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52, 60, 61, 62:
		return true
	}
	return false
}
