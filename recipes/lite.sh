#!/usr/bin/env bash
# The weights of `lite` in weights/: bash recipes/lite.sh
#
# Needs the folders of docs/data.md: EG1800/, Picsart/, People/ (drawn masks), Drafts3621/ (photos of
# People without drawn masks), More/, Cutouts/ (whole people with transparency), Heads/ (photos and
# drawn hair of the same names), backgrounds/, and MediaPipe's selfie_segmentation.tflite.
# Time and scores: docs/log/2026-11-30_lite_from_mediapipe.md.
set -euo pipefail

selfie=selfie_segmentation.tflite

# Masks: what `full` and MediaPipe agree on, moved onto the photos' edges.
python label.py --data_root Picsart/ --draft_weight 0.6 --model_path full $selfie \
    --min_agreement 0 --inset 0.7 --output Picsart_moved/
python label.py --data_root Drafts3621/ --draft_weight 0 --model_path full $selfie \
    --min_agreement 0 --inset 0.5 --output Drafted_moved/
# Drawn hair is a lower bound of the person: the label is the larger of a draft and the hair.
python label.py Heads/Images --model_path full $selfie --min_agreement 0 --output Heads_drafts/
python - <<'END'
from pathlib import Path

import cv2
import numpy as np

lines = []
for i, image in enumerate(sorted(Path("Heads/Images").iterdir())):
    draft = cv2.imread(f"Heads_drafts/Labels/{image.stem}.png", cv2.IMREAD_GRAYSCALE)
    if i % 4 == 0 or draft is None:  # every fourth head is held out
        continue
    hair = cv2.imread(f"Heads/Labels/{image.stem}.png", cv2.IMREAD_GRAYSCALE)
    Path("Hair/Labels").mkdir(parents=True, exist_ok=True)
    cv2.imwrite(f"Hair/Labels/{image.stem}.png", np.maximum(draft, 255 * np.uint8(hair > 0)))
    lines.append(f"{image.absolute()}\tLabels/{image.stem}.png\n")
Path("Hair/soft_list.txt").write_text("".join(lines))
END
# Whole people, groups and small people.
python -m data.composites Cutouts/ --backgrounds backgrounds/ --count 2400 --seed 1 --output Whole/
python -m data.composites Cutouts/ --backgrounds backgrounds/ --count 150 --seed 2 --split val \
    --output Whole_val/

# MediaPipe's network, trained further; a third of the masks' weight is given to `full`. The shipped
# training changed how often it saw which photos after the third and the fifth epoch (the log).
python -m models.selfie $selfie --output start.pdparams
python train.py --lite --pretrained start.pdparams --batch_size 16 \
    --data_root EG1800/ EG1800/ Picsart_moved/ Picsart_moved/ People/ People/ Drafted_moved/ \
    More/ More/ Whole/ Hair/ Whole_val/ \
    --epoch 7 --size 192:3,224:2,256 --lr 0.001 --weight_decay 0.001 --loss_weights 0.1 0 \
    --teacher weights/portraitnet.onnx --teacher_weight 0.35 --teacher_data EG1800/ People/ More/ \
    --rotation 15 0.05 --scale 0.8 1.4 --final_geometry 0.4 --photometric_prob 0.3 \
    --relight_prob 0.2 --background_prob 0.1 --min_person_scale 0.4 --negative_prob 0.1 \
    --occlusion_prob 0.05 --backgrounds backgrounds/ --seed 707 --output lite
# Half of the way back to the start has better contours and knows more photos.
python - <<'END'
import paddle

start, end = paddle.load("start.pdparams"), paddle.load("lite/model_6.pdparams")
mean = {name: (end[name] + start[name].astype("float32")) / 2 for name in end}
paddle.save(mean, "lite.pdparams")
END
python evaluate.py --model_path lite.pdparams --split val \
    --data_root EG1800/ Picsart/ People/ Whole_val/
