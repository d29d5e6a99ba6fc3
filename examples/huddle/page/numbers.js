// The numbers under the pictures: what arrives of others' videos, and what we send of ours.
'use strict';

const counts = new Map(); // mid, or 'mine' and a layer -> counters at the last caption
let told = '{}'; // what others know of our layers

// caption joins items such that a line ends only between them.
function caption(items) {
  return items.filter(Boolean).map((item) => item.replaceAll(' ', '\u00a0')).join('\u00a0· ');
}

// kilobits returns the rate since the last caption, or NaN for the first one.
function kilobits(key, s, now) {
  const before = counts.get(key);
  counts.set(key, { ...s, now });
  return before ? Math.max(0, s.bytes - before.bytes) * 8 / (now - before.now) : NaN;
}

// layerName tells by its size which layer of a sender arrives, and by its speed if several are of
// that size. It names all that it may be.
function layerName(layers, { height, fps }) {
  const distance = (layer) => Math.abs(Math.log(layer.height / height)); // senders may scale all down
  const nearest = Math.min(...layers.map(distance));
  const same = layers.filter((layer) => distance(layer) < nearest + 0.1);
  return same.filter((layer) => same.length === 1 || !layer.fps || fps <= layer.fps * 1.3).map((layer) => layer.rid).join('/');
}

// inboundNumbers describes the videos of others.
async function inboundNumbers(call) {
  const now = performance.now();
  for (const s of await call.inboundVideo()) {
    const box = document.querySelector('.picture[data-mid="' + CSS.escape(s.mid) + '"]');
    if (!box) continue;
    const before = counts.get(s.mid);
    const rate = kilobits(s.mid, s, now);
    if (!before || !s.width) continue;
    const lost = Math.max(0, s.lost - before.lost);
    const sent = lost + Math.max(0, s.packets - before.packets);
    const layer = layerName(layersOf(s.sender, s.type), s);
    box.querySelector('.numbers').textContent = caption([
      s.codec, s.width + '×' + s.height, Math.round(s.fps) + ' fps', layer && 'layer ' + layer,
      Math.round(rate) + ' kbit/s', (sent ? 100 * lost / sent : 0).toFixed(1) + ' % lost',
    ]);
  }
}

function layersOf(sender, type) {
  const person = app.people.get(sender);
  return person && person.layers && person.layers[type] || [];
}

// outboundNumbers describes our own videos, a line for each layer, and tells others of the layers.
async function outboundNumbers(call) {
  const now = performance.now();
  const sent = await call.outboundVideo();
  for (const [mid, type] of [['mine', 'video'], ['mine-screen', 'screen']]) {
    const box = document.querySelector('.picture[data-mid="' + mid + '"]');
    const layers = sent.filter((s) => s.type === type);
    if (!box || !layers.length) continue;
    const lines = layers.map((s) => {
      const rate = kilobits(mid + ' ' + s.rid, s, now);
      const size = s.width ? s.width + '×' + s.height : '';
      const what = !s.active ? 'off' : rate > 0 ? Math.round(rate) + ' kbit/s' : rate === 0 ? 'paused' : '…';
      return caption([(s.rid + ' ' + size).trim(), what, s.limited !== 'none' && 'limited by ' + s.limited]);
    });
    const { codec } = layers.find((s) => s.codec) || {};
    box.querySelector('.numbers').textContent = [codec && 'Sent as ' + codec, ...lines].filter(Boolean).join('\n');
  }
  tellLayers(call, sent);
}

// tellLayers tells others how high our layers are, once that is known and when it changes.
function tellLayers(call, sent) {
  const data = {};
  for (const s of sent) {
    if (!s.height || !s.rid) continue;
    data[s.type] = data[s.type] || [];
    data[s.type].push({ rid: s.rid, height: s.height, fps: s.maxFPS });
  }
  const text = JSON.stringify(data);
  if (call !== app.call || text === told) return;
  told = text;
  send({ type: 'layers', data });
}

// forgetNumbers is for a picture that is gone; without a mid, for a call.
function forgetNumbers(mid) {
  for (const key of counts.keys()) if (!mid || key.split(' ')[0] === mid) counts.delete(key);
  if (!mid) told = '{}';
}

async function showNumbers() {
  const { call } = app;
  if (!call || !document.querySelector('.picture')) return;
  await inboundNumbers(call);
  await outboundNumbers(call);
}

setInterval(() => showNumbers().catch((err) => console.warn('stats', err)), 1000);
