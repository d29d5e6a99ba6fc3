// As much MessagePack as the data channel needs: a number, then a boolean or a map of maps.
'use strict';

const msgpack = {
  // decode returns the values in an ArrayBuffer. It throws on anything that is cut short, nested
  // deeply or of a kind that does not occur.
  decode(buffer) {
    const view = new DataView(buffer);
    const text = new TextDecoder();
    let at = 0;
    const u8 = () => view.getUint8(at++);
    const u16 = () => { at += 2; return view.getUint16(at - 2); };
    const u32 = () => { at += 4; return view.getUint32(at - 4); };
    const bytes = (n) => {
      if (n > view.byteLength - at) throw new RangeError('cut short');
      at += n;
      return new Uint8Array(buffer, at - n, n);
    };
    const string = (n) => text.decode(bytes(n));
    const map = (n, depth) => {
      if (n > view.byteLength - at || depth > 4) throw new RangeError('map too large');
      const m = new Map();
      for (let i = 0; i < n; i++) {
        const key = value(depth + 1);
        m.set(key, value(depth + 1));
      }
      return m;
    };
    const value = (depth) => {
      const b = u8();
      if (b < 0x80) return b;
      if (b < 0x90) return map(b & 0x0f, depth);
      if (b >= 0xa0 && b < 0xc0) return string(b & 0x1f);
      switch (b) {
        case 0xc0: return null;
        case 0xc2: return false;
        case 0xc3: return true;
        case 0xc4: return bytes(u8());
        case 0xc5: return bytes(u16());
        case 0xc6: return bytes(u32());
        case 0xcc: return u8();
        case 0xcd: return u16();
        case 0xce: return u32();
        case 0xd9: return string(u8());
        case 0xda: return string(u16());
        case 0xdb: return string(u32());
        case 0xde: return map(u16(), depth);
        case 0xdf: return map(u32(), depth);
      }
      throw new RangeError('kind ' + b);
    };
    const values = [];
    while (at < view.byteLength && values.length < 2) values.push(value(0));
    return values;
  },
};
