// Cameras and screens: ours, and the tiles of everybody's.
'use strict';

const mine = {
  camera: null, screen: null, // MediaStreams
  busy: { camera: false, screen: false },
  granted: null, // resolves what waits for huddle to make us the sharer
};

function stopTracks(stream) {
  if (stream) stream.getTracks().forEach((t) => { t.onended = null; t.stop(); });
}

function mediaError(what, err) {
  const reasons = {
    NotAllowedError: 'The ' + what + ' is not allowed. Allow it in the browser and try again.',
    NotFoundError: 'No ' + what + ' was found.',
    NotReadableError: 'The ' + what + ' is used by another program.',
  };
  say(reasons[err.name] || 'The ' + what + ' does not work (' + err.name + ').');
}

// exclusively runs a change of the camera or the screen, unless one is under way.
async function exclusively(what, change) {
  if (mine.busy[what]) return;
  mine.busy[what] = true;
  showButtons();
  try {
    await change();
  } catch (err) {
    mediaError(what, err);
  } finally {
    mine.busy[what] = false;
    showVideo();
  }
}

// setCamera turns the camera on or off. The section of a camera that is off stays for the next time.
function setCamera(on) {
  return exclusively('camera', async () => {
    const { call } = app;
    if (!call || on === Boolean(mine.camera)) return;
    if (!on) {
      stopTracks(mine.camera);
      mine.camera = null;
      send({ type: 'video-off' });
      await call.setCamera(null);
      return;
    }
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, height: { ideal: 720 } } });
    if (call !== app.call) return stopTracks(stream); // left meanwhile
    mine.camera = stream;
    stream.getVideoTracks()[0].onended = () => setCamera(false);
    await publishCamera(call);
  });
}

// publishCamera sends the camera that is on, and says so.
async function publishCamera(call) {
  const stream = mine.camera;
  await call.setCamera(stream.getVideoTracks()[0], stream);
  if (call === app.call && stream === mine.camera) send({ type: 'video-on', data: { stream: stream.id } });
}

// setScreen shares a screen, which the browser asks for unless a stream is given, or ends that.
function setScreen(on, stream) {
  return exclusively('screen', async () => {
    const { call } = app;
    if (!call || on === Boolean(mine.screen)) return;
    if (!on) {
      stopTracks(mine.screen);
      mine.screen = null;
      send({ type: 'screen-off' });
      await call.setScreen(null);
      return;
    }
    stream = stream || await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: { max: 20 } } });
    if (call !== app.call) return stopTracks(stream); // left meanwhile
    mine.screen = stream;
    const granted = new Promise((resolve) => { mine.granted = resolve; });
    sayScreen();
    const got = await granted;
    mine.granted = null;
    if (!got || call !== app.call) {
      stopTracks(stream);
      if (mine.screen === stream) mine.screen = null;
      return;
    }
    const [track] = stream.getVideoTracks();
    track.contentHint = 'detail';
    track.onended = () => setScreen(false);
    await call.setScreen(track, stream);
    // It may have ended while that was under way, which was too busy to see it.
    if (track.readyState === 'ended' && mine.screen === stream) setTimeout(setScreen, 0, false);
  });
}

function sayScreen() {
  send({ type: 'screen-on', data: { stream: mine.screen.id } });
}

// sharing takes huddle's word on who shares.
function sharing(id) {
  app.sharer = id;
  if (mine.granted && id) mine.granted(id === app.id);
  else if (id === app.id && !mine.screen) send({ type: 'screen-off' }); // we gave up meanwhile
  else if (id && id !== app.id && mine.screen) setScreen(false); // we lost it with a WebSocket
  showVideo();
}

// resumeVideo says again what may have been lost with the WebSocket.
function resumeVideo() {
  if (mine.camera && app.call.camera) send({ type: 'video-on', data: { stream: mine.camera.id } });
  else if (!mine.camera) send({ type: 'video-off' });
  if (mine.screen && app.sharer !== app.id) sayScreen();
}

// endVideo forgets what belonged to a call. The camera is for the next one, too; a screen has to
// be shared anew.
function endVideo() {
  if (mine.granted) mine.granted(false);
  stopTracks(mine.screen);
  mine.screen = null;
  app.sharer = '';
  forgetNumbers();
  showVideo();
}

function stopCamera() {
  stopTracks(mine.camera);
  mine.camera = null;
}

function showButtons() {
  const ready = Boolean(app.call) && Boolean(navigator.mediaDevices);
  const button = (id, text, enabled) => {
    $(id).disabled = !enabled;
    if ($(id).textContent !== text) $(id).textContent = text;
  };
  button('camera', mine.camera ? 'Stop camera' : 'Camera', ready && !mine.busy.camera);
  const other = app.sharer && app.sharer !== app.id ? app.people.get(app.sharer) : null;
  const text = mine.screen ? 'Stop sharing' : other ? other.name + ' is sharing' : 'Share screen';
  button('share', text, ready && !mine.busy.screen && !other);
  $('share').title = other ? text + '. One screen can be shared at a time.' : '';
  $('share').hidden = !navigator.mediaDevices || !navigator.mediaDevices.getDisplayMedia;
}

// showVideo brings the pictures in line with what the media map lists and who has a camera on.
function showVideo() {
  const wanted = new Map();
  for (const p of app.call ? app.call.pictures() : []) {
    const person = app.people.get(p.sender);
    if (person && (p.type === 'screen' ? app.sharer === p.sender : person.camera)) wanted.set(p.mid, p);
  }
  if (mine.camera) wanted.set('mine', { mid: 'mine', type: 'video', sender: app.id, track: mine.camera.getVideoTracks()[0] });
  // Our screen is not shown, which would be a picture in itself: only what is sent of it.
  if (app.call && app.call.screen && mine.screen) wanted.set('mine-screen', { mid: 'mine-screen', type: 'screen', sender: app.id });
  for (const box of document.querySelectorAll('.picture')) {
    const p = wanted.get(box.dataset.mid);
    if (!p || p.sender !== box.dataset.sender || p.type !== box.dataset.type) {
      const video = box.querySelector('video');
      if (video) video.srcObject = null;
      box.remove();
      forgetNumbers(box.dataset.mid);
    }
  }
  for (const p of wanted.values()) showPicture(p);
  for (const item of $('people').children) item.classList.toggle('filmed', Boolean(item.querySelector('.picture')));
  $('people').classList.toggle('films', Boolean($('people').querySelector('.picture')));
  $('stage').hidden = !$('stage').querySelector('.picture');
  showButtons();
}

function showPicture({ mid, type, sender, track, unsupported }) {
  const place = type === 'screen' ? $('stage') : $('people').querySelector('[data-id="' + CSS.escape(sender) + '"]');
  if (!place) return; // the list of people is not up to date yet
  let box = document.querySelector('.picture[data-mid="' + CSS.escape(mid) + '"]');
  if (!box) {
    box = document.createElement('figure');
    box.className = 'picture';
    Object.assign(box.dataset, { mid, type, sender });
    const { name } = app.people.get(sender);
    const title = sender === app.id ? 'You share your screen' : name + '’s screen';
    const caption = document.createElement('figcaption');
    if (type === 'screen') caption.append(Object.assign(document.createElement('strong'), { textContent: title }));
    if (unsupported) {
      const text = 'This browser cannot show it: it comes in ' + unsupported + '.';
      caption.append(Object.assign(document.createElement('span'), { className: 'unsupported', textContent: text }));
    } else {
      caption.append(Object.assign(document.createElement('span'), { className: 'numbers' }));
    }
    if (track) {
      const video = document.createElement('video');
      video.autoplay = video.playsInline = video.muted = true;
      video.setAttribute('aria-label', mid === 'mine' ? 'Your camera' : type === 'screen' ? title : name + '’s camera');
      box.append(video);
    }
    box.append(caption);
    place.prepend(box);
  }
  const video = box.querySelector('video');
  if (!video || video.srcObject && video.srcObject.getVideoTracks()[0] === track) return;
  video.srcObject = new MediaStream([track]);
  video.play().catch(() => {}); // muted, so allowed; it rejects if it is removed meanwhile
}
