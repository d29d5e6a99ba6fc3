// The page: the form, the participants, the buttons. window.huddle is for tests.
'use strict';

const $ = (id) => document.getElementById(id);
const states = {
  idle: 'Not in a room', connecting: 'Connecting…', connected: 'Connected',
  reconnecting: 'Connection lost, trying again…', failed: 'Not connected',
};

const app = {
  state: 'idle', ws: null, call: null, mic: null, muted: false, id: '',
  people: new Map(), rtt: null, micText: '', attempts: 0, retry: 0, connectTimer: 0, name: '', room: '',
  codec: '', // to send videos in; rtcd chooses if empty
  token: '', // to go on with the session after a loss of the WebSocket
  sharer: '', // whose screen is shared
  held: [], // signalling that waits for the WebSocket to come back
};

function setState(state) {
  app.state = state;
  $('status').dataset.state = state;
  $('status-text').textContent = states[state];
}

function say(text) {
  $('message').textContent = text;
  $('message').hidden = !text;
}

// microphone asks for the microphone, and says what to do if there is none.
async function microphone() {
  app.micText = '';
  const none = (why) => {
    app.micText = why + ' You can still listen.';
    say(app.micText);
    return null;
  };
  if (!navigator.mediaDevices) {
    return none('Browsers give the microphone only to pages on https or on this computer.');
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
  } catch (err) {
    const reasons = {
      NotAllowedError: 'The microphone is not allowed. Allow it in the address bar and join again to speak.',
      NotFoundError: 'No microphone was found.',
      NotReadableError: 'The microphone is used by another program.',
    };
    return none(reasons[err.name] || 'The microphone does not work (' + err.name + ').');
  }
}

async function join() {
  app.name = $('name').value.trim();
  app.room = $('room').value.trim().toLowerCase();
  app.codec = $('codec').value;
  say('');
  setState('connecting');
  $('join').hidden = true;
  $('call').hidden = false;
  $('room-title').textContent = app.room;
  $('leave').focus();
  history.replaceState(null, '', '?room=' + encodeURIComponent(app.room));
  try {
    localStorage.setItem('huddle-name', app.name);
  } catch { /* a private window: the name is asked for again */ }
  app.mic = await microphone();
  if (app.state !== 'connecting') return stopMicrophone(); // left meanwhile
  showMute();
  connect();
}

// connect opens the WebSocket and, over it, a call; or goes on with the call there is.
function connect() {
  const url = new URL('ws', location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  url.search = new URLSearchParams({
    room: app.room, name: app.name, token: app.token, av1: receivesCodec('AV1') ? '1' : '0',
  });
  const ws = new WebSocket(url);
  app.ws = ws;
  ws.onmessage = (e) => { if (ws === app.ws) received(JSON.parse(e.data)); };
  ws.onclose = () => { if (ws === app.ws) (mayResume() ? interrupted : lost)(); };
  clearTimeout(app.connectTimer);
  app.connectTimer = setTimeout(lost, 15000);
}

// mayResume: a call that has been connected may be again, on another network perhaps.
function mayResume() {
  return app.token && app.call && app.call.met && !['failed', 'closed'].includes(app.call.pc.connectionState);
}

function send(message) {
  if (app.ws && app.ws.readyState === WebSocket.OPEN && !app.held.length) app.ws.send(JSON.stringify(message));
  else if (app.call && app.held.length < 100) app.held.push(message);
}

// resumed sends what waited, and says whether we are muted: it may have changed meanwhile.
function resumed() {
  clearTimeout(app.connectTimer);
  app.attempts = 0;
  for (const message of app.held.splice(0)) send(message);
  if (app.call.sends) send({ type: app.muted ? 'mute' : 'unmute' });
  resumeVideo();
  if (app.call.pc.connectionState === 'connected') setState('connected');
}

function startCall() {
  const call = new Call(send, {
    state(state) {
      if (call !== app.call) return;
      if (state === 'connected') {
        call.met = true;
        if (!app.ws || app.ws.readyState !== WebSocket.OPEN) return; // resumed() sees it
        clearTimeout(app.connectTimer);
        app.attempts = 0;
        say(app.micText);
        setState('connected');
      } else if (state === 'disconnected') {
        setState('reconnecting');
      } else if (state === 'failed' || state === 'closed') {
        lost();
      }
    },
    rtt(ms) {
      app.rtt = ms;
      $('rtt').textContent = ms < 10 ? ms.toFixed(1) + ' ms' : Math.round(ms) + ' ms';
    },
    track: play,
    pictures: () => { if (call === app.call) showVideo(); },
    published: () => { if (call === app.call) send({ type: app.muted ? 'mute' : 'unmute' }); },
  }, app.codec);
  app.call = call;
  call.start().catch((err) => { console.warn(err); lost(); });
  if (app.mic) call.publish(app.mic.getAudioTracks()[0], app.mic).catch((err) => console.warn(err));
  if (mine.camera) exclusively('camera', () => publishCamera(call)); // of the call before
  showButtons();
}

// play lets a voice be heard. A media section keeps its element, whoever speaks in it.
function play(mid, track) {
  let audio = $('audio').querySelector('[data-mid="' + CSS.escape(mid) + '"]');
  if (!audio) {
    audio = document.createElement('audio');
    audio.autoplay = true;
    audio.dataset.mid = mid;
    $('audio').append(audio);
  }
  audio.srcObject = new MediaStream([track]);
  audio.play().catch((err) => {
    if (err.name === 'NotAllowedError') $('hear').hidden = false; // it takes a click
  });
}

function received(m) {
  switch (m.type) {
    case 'welcome':
      if (!m.back) endCall();
      app.id = m.id;
      app.token = m.token;
      app.sharer = m.sharer || '';
      app.people = new Map(m.people.map((p) => [p.id, p]));
      showPeople();
      if (m.back && app.call) resumed();
      else startCall();
      break;
    case 'person':
      app.people.set(m.person.id, m.person);
      showPeople();
      break;
    case 'left':
      app.people.delete(m.id);
      showPeople();
      break;
    case 'voice':
      if (app.people.has(m.id)) app.people.get(m.id).speaking = m.on;
      showPeople();
      break;
    case 'screen':
      sharing(m.id || '');
      break;
    case 'sdp':
    case 'ice':
      if (app.call) app.call.signal(m.type, m.data);
      break;
    case 'server':
      say(m.on ? app.micText : 'The media server cannot be reached. The call goes on, but nobody can join.');
      break;
    case 'refused':
      leave();
      setState('failed');
      say(m.text);
      break;
    case 'ended':
      app.token = '';
      say(m.text);
      break;
  }
}

function endCall() {
  const { call } = app;
  app.call = null;
  if (call) call.close();
  app.held = [];
  $('audio').replaceChildren();
  app.people.clear();
  endVideo();
  app.rtt = null;
  $('rtt').textContent = '–';
  showPeople();
}

// drop gives up the connection and the call, but not the wish to be in the room. A WebSocket that
// is closed in order tells huddle that this session is over.
function drop() {
  clearTimeout(app.connectTimer);
  const { ws } = app;
  app.ws = null;
  app.token = '';
  endCall();
  if (ws) ws.close();
}

// interrupted opens the WebSocket again while the call, which does not need it, goes on.
function interrupted() {
  app.ws = null;
  setState('reconnecting');
  retry();
}

// lost joins again, after a delay that grows.
function lost() {
  const welcomed = Boolean(app.call);
  drop();
  setState('reconnecting');
  if (app.attempts > 1) {
    say(welcomed ? 'Your browser does not get through to the media server. A firewall may block its port.'
      : 'The huddle server cannot be reached. Is it still running?');
  }
  retry();
}

function retry() {
  clearTimeout(app.connectTimer);
  const delay = Math.min(500 * 2 ** app.attempts++, 10000) * (0.5 + Math.random() / 2);
  clearTimeout(app.retry);
  app.retry = setTimeout(connect, delay);
}

function stopMicrophone() {
  if (app.mic) app.mic.getTracks().forEach((t) => t.stop());
  app.mic = null;
}

function leave() {
  clearTimeout(app.retry);
  drop();
  stopMicrophone();
  stopCamera();
  setState('idle');
  say('');
  $('call').hidden = true;
  $('hear').hidden = true;
  $('join').hidden = false;
}

function setMuted(muted) {
  if (!app.mic) return;
  app.muted = muted;
  for (const track of app.mic.getAudioTracks()) track.enabled = !muted;
  send({ type: muted ? 'mute' : 'unmute' });
  showMute();
}

function showMute() {
  $('mute').disabled = !app.mic;
  $('mute').classList.toggle('primary', Boolean(app.mic) && app.muted);
  $('mute').textContent = !app.mic ? 'Listening only' : app.muted ? 'Unmute' : 'Mute';
}

// showPeople brings the list in line with app.people, touching only what changed.
function showPeople() {
  const list = $('people');
  const items = new Map([...list.children].map((li) => [li.dataset.id, li]));
  for (const [id, item] of items) if (!app.people.has(id)) item.remove();
  for (const p of app.people.values()) {
    const item = items.get(p.id) || list.appendChild(newItem(p));
    const speaking = p.speaking && !p.muted;
    item.classList.toggle('speaking', speaking);
    const how = p.muted ? 'Muted' : speaking ? 'Speaking' : 'Listening';
    const line = item.querySelector('.how');
    if (line.textContent !== how) line.textContent = how;
  }
  $('alone').hidden = app.people.size !== 1;
  showVideo();
}

function newItem(p) {
  const item = document.createElement('li');
  item.className = 'person';
  item.dataset.id = p.id;
  const add = (className, text) => {
    const e = item.appendChild(document.createElement('div'));
    e.className = className;
    e.textContent = text;
    return e;
  };
  const avatar = add('avatar', [...p.name].slice(0, 1).join('').toUpperCase());
  avatar.setAttribute('aria-hidden', 'true');
  const hue = [...p.name].reduce((h, c) => (h * 31 + c.codePointAt(0)) % 360, 7);
  avatar.style.background = 'hsl(' + hue + ' 45% 42%)';
  add('who', p.id === app.id ? p.name + ' (you)' : p.name);
  add('how', '');
  return item;
}

$('join').addEventListener('submit', (e) => { e.preventDefault(); join(); });
$('leave').addEventListener('click', () => { leave(); $('name').focus(); });
$('mute').addEventListener('click', () => setMuted(!app.muted));
$('camera').addEventListener('click', () => setCamera(!mine.camera));
$('share').addEventListener('click', () => setScreen(!mine.screen));
$('hear').addEventListener('click', () => {
  $('hear').hidden = true;
  $('audio').querySelectorAll('audio').forEach((a) => a.play().catch(() => { $('hear').hidden = false; }));
});
window.addEventListener('pagehide', drop);
window.addEventListener('pageshow', (e) => { if (e.persisted && app.state !== 'idle') lost(); });

window.huddle = {
  get state() { return app.state; },
  mute: () => setMuted(true),
  unmute: () => setMuted(false),
  camera: setCamera,
  screen: setScreen, // (on, stream): a stream in place of a screen that the browser captures
  async stats() {
    return {
      state: app.state, rtt: app.rtt,
      inbound: app.call ? await app.call.inbound() : [],
      video: app.call ? (await app.call.inboundVideo()).map((v) => ({ ...v, layer: layerName(layersOf(v.sender, v.type), v) })) : [],
      sent: app.call ? await app.call.outboundVideo() : [],
      sharer: app.sharer,
      participants: [...app.people.values()].map((p) => ({ ...p })),
    };
  },
};

const query = new URLSearchParams(location.search);
const guest = 'Guest ' + Math.floor(Math.random() * 900 + 100);
let lastName = '';
try {
  lastName = localStorage.getItem('huddle-name') || '';
} catch { /* as above */ }
$('name').value = query.get('name') || lastName || guest;
$('room').value = query.get('room') || 'lobby';
for (const name of sendableCodecs()) $('codec').append(new Option(name.replace('H264', 'H.264'), name));
const codec = (query.get('codec') || '').toUpperCase();
if ([...$('codec').options].some((o) => o.value === codec)) $('codec').value = codec;
else say('This browser cannot send ' + codec + '.');
if (query.get('autojoin') === '1') join();
else $('name').focus();
