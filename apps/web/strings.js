// Every sentence that a visitor can read or hear, in English and in Chinese. {name} is replaced by a
// value. tests/test_web_strings.py finds sentences outside this table.

export const STRINGS = {
  title: ["PortraitNet: people without their background", "PortraitNet：一键抠出人像"],
  language: ["Switch to Chinese", "切换到英文"],
  source: ["Source", "来源"],
  photo: ["Photo", "照片"],
  camera: ["Camera", "摄像头"],

  // The empty stage
  drop_photos: ["Drop photos or videos here, paste one, or", "把照片或视频拖到这里、直接粘贴，或者"],
  take_photo: ["Take a photo, or choose one of yours", "拍一张照片，或从相册中选择"],
  choose_photos: ["Choose photos", "选择照片"],
  see_yourself: ["See yourself, live", "在镜头前实时查看效果"],
  open_photo: ["Show {name}", "查看 {name}"],
  remove_photo: ["Remove {name}", "移除 {name}"],
  retry_photo: ["Try {name} again", "重试 {name}"],
  make_video: ["Make video", "生成视频"],
  cancel: ["Cancel", "取消"],
  turn_on: ["Turn the camera on", "打开摄像头"],
  private: [
    "Nothing is uploaded: everything runs on this device.",
    "照片不会上传，全部处理都在这台设备上完成。",
  ],
  samples: ["No photo at hand? Try one of these:", "手边没有照片？试试这几张："],
  sample_scarf: ["Woman with a scarf", "围围巾的女士"],
  sample_hat: ["Man with a hat", "戴帽子的男士"],
  sample_colors: ["Man in bright colours", "衣着鲜艳的男士"],

  // The picture
  picture: ["Picture", "图片"],
  original: ["The original photo", "原图"],
  result: ["The result", "处理结果"],
  divider: [
    "Divider between original and result, percent from the left",
    "原图与结果的分界线，距左侧的百分比",
  ],
  loading: ["Loading the network", "正在加载模型"],
  your_photos: ["Your photos", "你的照片"],
  zoom_out: ["Zoom out", "缩小"],
  zoom_in: ["Zoom in", "放大"],

  // Controls
  controls: ["Controls", "设置"],
  tools: ["Tools", "工具"],
  effect: ["Effect", "效果"],
  cutout: ["Cut-out", "抠图"],
  replace: ["Background", "换背景"],
  blur: ["Blur", "虚化"],
  grey: ["Grey", "留色"],
  overlay: ["Overlay", "标示"],
  mask: ["Mask", "蒙版"],
  about_cutout: [
    "The person on a transparent background, ready for a slide or a sticker.",
    "透明背景上的人像，可直接用于幻灯片或贴纸。",
  ],
  hair: ["Hair", "发丝"],
  about_hair: [
    "Finds loose hair strand by strand: takes some seconds for each photo",
    "逐根抠出发丝，每张照片需要几秒钟",
  ],
  finding_hair: ["Finding the hair …", "正在抠取发丝……"],
  about_grey: ["Only the person keeps the colours.", "只有人物保留颜色，背景变为黑白。"],
  about_overlay: ["Shows where the network sees a person.", "标出模型识别到的人物区域。"],
  about_mask: [
    "White where the person is, as input for other programs.",
    "人物为白色，其余为黑色，可供其他软件使用。",
  ],
  background: ["Background", "背景"],
  studio: ["Studio", "影棚"],
  room: ["Room", "房间"],
  garden: ["Garden", "花园"],
  sea: ["Sea", "海边"],
  dusk: ["Dusk", "黄昏"],
  city: ["City", "城市夜景"],
  a_color: ["Another colour", "其他颜色"],
  own_photo: ["Your own photo", "自选照片"],
  brush: ["Brush", "画笔"],
  brush_here: [
    "Brush on the picture: the arrow keys move the brush, the space bar paints",
    "在图片上涂抹：方向键移动画笔，空格键涂抹",
  ],
  restore: ["Restore", "恢复"],
  erase: ["Erase", "擦除"],
  undo: ["Undo", "撤销"],
  redo: ["Redo", "重做"],
  brush_size: ["Size", "大小"],
  softness: ["Softness", "柔和度"],
  follow: ["Follow edges", "贴合边缘"],
  about_follow: ["The brush stops at the photo's contours", "画笔遇到照片中的轮廓就停下"],
  reset: ["Reset", "还原"],
  frame: ["Frame", "构图"],
  shape: ["Format", "规格"],
  frame_photo: ["The whole photo", "整张照片"],
  frame_person: ["Crop to the person", "裁剪到人物"],
  frame_square: ["Square, head and shoulders", "方形头像"],
  frame_circle: ["Circle, head and shoulders", "圆形头像"],
  frame_35x45: ["Passport, 35 × 45 mm", "护照，35 × 45 毫米"],
  frame_2x2in: ["US passport, 2 × 2 in", "美国护照，2 × 2 英寸"],
  frame_25x35: ["Small ID, 25 × 35 mm", "一寸证件照，25 × 35 毫米"],
  frame_note: [
    "Check the rules: some authorities accept no changed background.",
    "有些机构不接受换过背景的照片，请先查看要求。",
  ],
  margin: ["Margin", "边距"],
  layer: ["What to move", "移动对象"],
  person: ["Person", "人物"],
  angle: ["Rotation", "旋转"],
  move_note: ["Drag the picture to move it.", "拖动图片即可移动。"],
  move_here: [
    "Position in the picture: the arrow keys move it, plus and minus resize it",
    "图片中的位置：方向键移动，加减号缩放",
  ],
  crown: ["Top of the head", "头顶"],
  chin: ["Chin", "下巴"],
  style: ["Style", "装饰"],
  shadow: ["Shadow", "阴影"],
  outline: ["Outline", "描边"],
  outline_color: ["Colour of the outline", "描边颜色"],
  style_note: [
    "For cut-outs and new backgrounds: choose one of these effects.",
    "仅用于抠图和换背景：请先选择这两种效果之一。",
  ],
  quality: ["Quality", "质量"],
  weight: ["{width} × {height} pixels, {bytes}", "{width} × {height} 像素，{bytes}"],
  weight_print: [
    "{width} × {height} pixels, {bytes}, {wide} × {high} mm",
    "{width} × {height} 像素，{bytes}，{wide} × {high} 毫米",
  ],
  white: ["White", "白色"],
  black: ["Black", "黑色"],
  blue: ["Blue", "蓝色"],
  red: ["Red", "红色"],
  own_color: ["Your colour {color}", "自选颜色 {color}"],
  strength: ["Strength", "强度"],
  network: ["Network", "模型"],
  full: ["Best edges", "边缘最佳"],
  lite: ["Fastest", "速度最快"],
  large: ["Finest", "最精细"],
  about_large: [
    "A larger network for photos and videos: {size}, downloaded once",
    "更大的模型，适合照片和视频：{size}，只下载一次",
  ],
  loading_large: ["Downloading the finest network, {size} …", "正在下载最精细的模型，{size}……"],
  about_full: ["Sees more detail: for photos", "细节更多，适合照片"],
  about_lite: ["Sees less detail, but runs faster: for the camera", "细节较少但更快，适合摄像头"],
  mirror: ["Mirror", "镜像"],
  size: ["Size", "尺寸"],
  format: ["Format", "格式"],
  download: ["Download", "下载"],
  take: ["Take a photo", "拍照"],
  copy: ["Copy", "复制"],
  send: ["Share", "分享"],
  turn_camera: ["Front or back", "切换前后摄像头"],
  add_photos: ["Add photos", "添加照片"],
  download_all: ["Download all", "全部下载"],
  sound: ["Microphone", "麦克风"],
  record: ["Record a video", "录制视频"],
  stop_recording: ["Stop · {time}", "停止 · {time}"],
  camera_off: ["Camera off", "关闭摄像头"],
  camera_number: ["Camera {number}", "摄像头 {number}"],
  details: ["Details", "详细信息"],
  privacy: [
    "Your photos and your camera stay on this device: the page can connect to its own server only.",
    "照片和摄像头画面只留在这台设备上：本页面只能连接自己的服务器。",
  ],
  photos: ["Photos", "照片"],

  // What the page says
  getting_ready: ["Getting ready …", "正在准备……"],
  ready: ["Ready when you are.", "准备就绪。"],
  finding: ["Finding the person …", "正在识别人物……"],
  nobody: [
    "Nobody was found in this photo. Try one with a larger person or in better light.",
    "这张照片里没有找到人物。请换一张人物更大或光线更好的照片。",
  ],
  photo_size: ["{name}, {width} × {height} pixels", "{name}，{width} × {height} 像素"],
  photo_times: [
    "The person covers {percent} % of the photo. Network {network}, in total {total}.",
    "人物占画面的 {percent}%。模型用时 {network}，共 {total}。",
  ],
  video_size: [
    "{name}, {width} × {height} pixels, {length}",
    "{name}，{width} × {height} 像素，时长 {length}",
  ],
  video_begins: ["Reading the video …", "正在读取视频……"],
  video_progress: ["{percent} %, {length} left", "{percent}%，还需 {length}"],
  video_done: ["{name} is ready, {size}.", "{name} 已完成，{size}。"],
  video_silent: [
    "{name} is ready, {size}. This browser could not read the sound.",
    "{name} 已完成，{size}。这个浏览器无法读取声音。",
  ],
  video_canceled: ["Cancelled: no video was made.", "已取消，没有生成视频。"],
  on_graphics: ["Runs on the graphics card.", "使用显卡运行。"],
  on_thread: ["Runs on the processor, 1 thread.", "使用处理器运行，1 个线程。"],
  on_threads: ["Runs on the processor, {threads} threads.", "使用处理器运行，{threads} 个线程。"],
  link: ["Copy a link to these settings", "复制包含这些设置的链接"],
  link_copied: ["Link copied: it opens the page with these settings.", "链接已复制，打开它就是当前的设置。"],
  link_shown: ["The page's address now holds these settings.", "页面地址现在包含这些设置。"],
  copied: ["Copied: paste it where you want it.", "已复制，可以粘贴到任何地方。"],
  zip_progress: ["Photo {number} of {all}", "第 {number} 张，共 {all} 张"],
  zip_canceled: ["Cancelled: nothing was downloaded.", "已取消，没有下载任何文件。"],
  all_saved: ["{saved} photos downloaded, {size}.", "已下载 {saved} 张照片，{size}。"],
  some_saved: [
    "{saved} of {all} downloaded: nobody was found in the others, or they could not be read.",
    "已下载 {saved} 张，共 {all} 张：其余照片里没有找到人物，或无法读取。",
  ],
  live: ["Live.", "实时画面。"],
  slow: ["Live. A smaller size moves more smoothly.", "实时画面。选择较小的尺寸会更流畅。"],
  camera_times: [
    "{rate} frames/s of {width} × {height} pixels: network {network}, in total {total}.",
    "每秒 {rate} 帧，{width} × {height} 像素：模型用时 {network}，共 {total}。",
  ],
  camera_is_off: ["The camera is off.", "摄像头已关闭。"],
  camera_waiting: ["Waiting for the camera …", "正在等待摄像头……"],

  // What can go wrong
  failed: ["This failed: {reason}", "操作失败：{reason}"],
  unreadable: [
    "{name} can't be opened as an image: choose a JPEG, PNG or WebP.",
    "{name} 无法作为图片打开：请选择 JPEG、PNG 或 WebP 文件。",
  ],
  unreadable_video: [
    "{name} can't be opened as a video: choose an MP4 or WebM.",
    "{name} 无法作为视频打开：请选择 MP4 或 WebM 文件。",
  ],
  no_encoder: [
    "This browser cannot write videos of this size: use a newer browser or a smaller video.",
    "这个浏览器不能生成这种尺寸的视频：请使用更新的浏览器或较小的视频。",
  ],
  too_large: [
    "A photo of {width} × {height} is too large for this browser.",
    "{width} × {height} 的照片对这个浏览器来说太大了。",
  ],
  cannot_write: [
    "This browser cannot write {format}: choose another format.",
    "这个浏览器不能保存 {format} 格式：请选择其他格式。",
  ],
  cannot_copy: ["The browser did not allow copying: {reason}", "浏览器不允许复制：{reason}"],
  cannot_load: ["The network cannot be loaded: {reason}", "无法加载模型：{reason}"],
  no_network: ["there is no network {name}: give full or lite.", "没有名为 {name} 的模型：请使用 full 或 lite。"],
  no_backend: ["there is no backend {name}: give wasm or webgpu.", "没有名为 {name} 的后端：请使用 wasm 或 webgpu。"],
  not_sent: ["the server did not send {address}.", "服务器没有返回 {address}。"],
  no_worker: [
    "This browser cannot run the page's worker: use a newer one.",
    "这个浏览器无法运行本页面：请使用更新的浏览器。",
  ],
  no_camera_here: [
    "This browser allows no camera at this address: use https, or http://127.0.0.1.",
    "浏览器不允许在这个地址使用摄像头：请改用 https 或 http://127.0.0.1。",
  ],
  NotAllowedError: [
    "The camera was not allowed: allow it for this page in the browser's address bar.",
    "摄像头未被允许：请在浏览器的地址栏中允许本页面使用摄像头。",
  ],
  NotFoundError: ["No camera was found: connect one and try again.", "没有找到摄像头：请连接后重试。"],
  NotReadableError: [
    "The camera cannot be read: another program may be using it.",
    "无法读取摄像头：可能正被其他程序使用。",
  ],
  camera_failed: ["The camera failed: {reason}", "摄像头出错：{reason}"],
  camera_gone: [
    "The camera was disconnected: connect the camera and turn it on again.",
    "摄像头已断开：请重新连接并再次打开。",
  ],
  camera_stopped: ["The camera stopped: {reason}", "摄像头已停止：{reason}"],
  no_microphone: [
    "No microphone could be used: allow the microphone in the browser's address bar, or turn it off here.",
    "无法使用麦克风：请在浏览器的地址栏中允许，或在这里关闭麦克风。",
  ],
  recording_hidden: [
    "The recording ended and was saved because this browser stops the camera in hidden tabs.",
    "录制已结束并保存：这个浏览器会在标签页隐藏时停止摄像头。",
  ],
  recording_failed: ["The recording failed: {reason}", "录制失败：{reason}"],
};

export const LANGUAGES = ["en", "zh-CN"]; // in the order of the table's columns

/** An error in the visitor's language: `key` and `values` as for `sentence`. */
export class Problem extends Error {
  constructor(key, values = {}) {
    super(sentence("en", key, values));
    Object.assign(this, { key, values });
  }
}

/** The table's text; a value may be an error, which gives its own sentence. */
export function sentence(language, key, values = {}) {
  const found = STRINGS[key]?.[LANGUAGES.indexOf(language)];
  if (found === undefined) throw new Error(`strings.js has no ${key} in ${language}`);
  return found.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    if (!(value instanceof Error)) return value;
    return value.key ? sentence(language, value.key, value.values) : value.message;
  });
}

