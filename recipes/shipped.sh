#!/usr/bin/env bash
# The weights that lie in weights/, full and lite: bash recipes/shipped.sh
#
# Needs EG1800/, Picsart/, People/, backgrounds/ and what else docs/reproduce.md lists beside it, and says what they hold.
# Time: on one core with AVX512-BF16, beside other work: 86 minutes (42 epochs of the first training, after which the next may
# start; all 180 would take 10 hours), 29 minutes, 51 minutes (21 epochs of 52, after which the next may start), 86 minutes,
# 23 minutes (4 of 20 epochs, on a processor with AMX), 77, 110, 53 and 60; from there on 16, 58, 16, 83, 15, 29, 14, 83, 50, 39, 15 and 14.
# Reaches: person IoU 97.38 % on EG1800's validation list, 95.50 % on Picsart's, 95.78 % on People's.
set -euo pipefail

python train.py --data_root EG1800/ Picsart/ People/ --pretrained person --amp --epoch 180 --size_schedule 128:80,160:50 \
    --batch_size 16 --lr 0.002 --warmup 0.3 --weight_decay 0.01 --ema 0.9995 --consistency_weight 0 \
    --rotation 20 --scale 0.7 1.6 --shift 0.12 --final_strength 0.4 --texture_prob 0.5 --light_prob 0.3 --jpeg_prob 0.3 \
    --backgrounds backgrounds/ --background_prob 0.25 --least_scale 0.3 --empty_share 0.03 --thing_prob 0.15 \
    --output stage1
python train.py --data_root EG1800/ EG1800/ Picsart/ Picsart/ People1100/ --pretrained stage1/model_41.pdparams --amp --epoch 9 \
    --size_schedule 160:4 --batch_size 16 --lr 0.001 --warmup 0.2 --weight_decay 0.01 --ema 0.998 --consistency_weight 0 \
    --rotation 12 --scale 0.8 1.4 --shift 0.08 --final_strength 0.5 --texture_prob 0.3 --light_prob 0.2 --jpeg_prob 0.2 \
    --backgrounds backgrounds/ --background_prob 0.15 --least_scale 0.4 --empty_share 0.03 --thing_prob 0.08 \
    --output stretch1
python train.py --data_root EG1800/ Picsart/ People/ --pretrained stretch1/model_8.pdparams --amp --epoch 52 --size 160 \
    --batch_size 16 --lr 0.0016 --warmup 0.3 --weight_decay 0.01 --ema 0.9995 --consistency_weight 0 \
    --rotation 20 --scale 0.7 1.6 --shift 0.12 --final_strength 0.5 --texture_prob 0.5 --light_prob 0.3 --jpeg_prob 0.3 \
    --backgrounds backgrounds/ --background_prob 0.25 --least_scale 0.3 --empty_share 0.06 --thing_prob 0.15 \
    --output stage2
# The drafts once more, as the mean of what they were and what the better network says of them.
python label.py --data_root Drafts2000/ --draft_weight 0.5 --model_path stage2/model_15.pdparams --output Relabelled/
python train.py --data_root EG1800_clean/ EG1800_clean/ Picsart/ Picsart/ People_clean/ Relabelled/ \
    --pretrained stage2/model_20.pdparams --amp --epoch 18 --size_schedule 160:1 \
    --batch_size 16 --lr 0.001 --warmup 0.3 --weight_decay 0.01 --ema 0.999 --consistency_weight 0 \
    --rotation 12 --scale 0.8 1.35 --shift 0.08 --final_strength 0.5 --texture_prob 0.35 --light_prob 0.25 --jpeg_prob 0.25 \
    --backgrounds backgrounds/ --background_prob 0.15 --least_scale 0.4 --empty_share 0.05 --thing_prob 0.08 \
    --output stretch2
# Masks that three networks agree on: label.py's for the drafts, and for Picsart six parts of the drawn one and four of theirs.
python label.py --data_root Drafts3621/ --model_path stretch2/model_17.pdparams selfie_segmentation.tflite --salient isnet.onnx \
    --least_agreement 0 --output Drafted/
# What the trainings from here on have in common.
late=(
    --amp --batch_size 16 --warmup 0.3 --weight_decay 0.01 --ema 0.999 --consistency_weight 0
    --rotation 20 --scale 0.75 1.4 --shift 0.08 --final_strength 0.5
    --backgrounds backgrounds/ --background_prob 0.15 --least_scale 0.4 --empty_share 0.08 --thing_prob 0.08
)
python train.py "${late[@]}" \
    --data_root EG1800_clean/ EG1800_clean/ Picsart/ Picsart/ People_clean/ Relabelled/ EG1800_hard/ Picsart_hard/ Picsart_hard/ \
    --pretrained stretch2/model_17.pdparams --epoch 20 --lr 0.001 --texture_prob 0.35 --light_prob 0.25 --jpeg_prob 0.25 \
    --seed 21 --teacher selfie_segmentation.tflite --taught Picsart/ Picsart_hard/ Relabelled/ --output stage3
python train.py "${late[@]}" \
    --data_root EG1800_clean/ EG1800_clean/ EG1800_hard/ Picsart_mixed/ Picsart_mixed/ Picsart_mixed_hard/ Picsart_mixed_hard/ People_clean/ Drafted/ \
    --pretrained stage3/model_3.pdparams --epoch 11 --lr 0.001 --texture_prob 0.35 --light_prob 0.25 --jpeg_prob 0.25 \
    --seed 22 --output stretch3
# Three from here, each a little apart from the others; their mean is better than any of them.
python train.py "${late[@]}" \
    --data_root EG1800_clean/ EG1800_clean/ EG1800_hard/ Picsart_mixed/ Picsart_mixed/ Picsart_mixed_hard/ Picsart_mixed_hard/ People_clean/ Drafted/ \
    --pretrained stretch3/model_10.pdparams --epoch 14 --lr 0.001 --texture_prob 0.6 --light_prob 0.35 --jpeg_prob 0.3 \
    --seed 24 --teacher selfie_segmentation.tflite --teacher_share 0.25 --taught Picsart_mixed/ Picsart_mixed_hard/ \
    --output last1
python train.py "${late[@]}" \
    --data_root EG1800_clean/ EG1800_clean/ EG1800_hard/ Picsart_mixed/ Picsart_mixed/ Picsart_mixed/ Picsart_mixed_hard/ Picsart_mixed_hard/ People_clean/ Drafted/ \
    --pretrained stretch3/model_10.pdparams --epoch 6 --lr 0.001 --texture_prob 0.5 --light_prob 0.25 --jpeg_prob 0.25 \
    --seed 26 --teacher selfie_segmentation.tflite --teacher_share 0.4 --taught Picsart_mixed/ Picsart_mixed_hard/ \
    --output last2
python train.py "${late[@]}" \
    --data_root EG1800_clean/ EG1800_clean/ Picsart_mixed/ Picsart_mixed/ Picsart_mixed/ Picsart_mixed_hard/ Picsart_mixed_hard/ People_clean/ Drafted/ \
    --pretrained stretch3/model_10.pdparams --epoch 8 --size 160 --lr 0.0008 --texture_prob 0.35 --light_prob 0.25 \
    --jpeg_prob 0.25 --seed 25 --teacher selfie_segmentation.tflite --teacher_share 0.35 --output last3
mean() { # mean OUTPUT SHARE FILE [SHARE FILE ...]
    python - "$@" << 'END'
import sys

import paddle

_, output, *rest = sys.argv
weights = [(float(share), paddle.load(path)) for share, path in zip(rest[::2], rest[1::2])]
paddle.save({name: sum(share * each[name] for share, each in weights) for name in weights[0][1]}, output)
END
}
mean mean1.pdparams 0.4 last1/model_13.pdparams 0.4 last2/model_5.pdparams 0.2 last3/model_7.pdparams
# Four that go on from the mean, with Picsart's photos more often, and their mean. Of the first three the next may start after 1, 7 and 1 epochs.
roots=(
    --data_root EG1800_clean/ EG1800_clean/ EG1800_hard/ Picsart_mixed/ Picsart_mixed/ Picsart_mixed/ Picsart_mixed_hard/ Picsart_mixed_hard/
    People_clean/ Drafted/
)
taught=(--teacher selfie_segmentation.tflite --teacher_share 0.3 --taught Picsart_mixed/ Picsart_mixed_hard/)
spoilt=(--texture_prob 0.6 --light_prob 0.35 --jpeg_prob 0.3)
python train.py "${late[@]}" "${roots[@]}" "${taught[@]}" "${spoilt[@]}" --pretrained mean1.pdparams --epoch 20 --lr 0.001 --seed 31 --output on1
python train.py "${late[@]}" "${roots[@]}" "${taught[@]}" "${spoilt[@]}" --pretrained on1/model_0.pdparams --epoch 11 --lr 0.0008 --seed 31 --output on2
python train.py "${late[@]}" "${roots[@]}" "${taught[@]}" "${spoilt[@]}" --pretrained mean1.pdparams --epoch 6 --size 320 --lr 0.0008 --seed 41 --output on3
python train.py "${late[@]}" "${roots[@]}" "${taught[@]}" "${spoilt[@]}" --pretrained on1/model_0.pdparams --epoch 11 --lr 0.0008 --seed 31 --output on4
mean mean2.pdparams 0.35 on4/model_8.pdparams 0.35 on2/model_6.pdparams 0.15 on3/model_0.pdparams 0.15 mean1.pdparams
# Milder deformations, then more photos without people, of which the next may start after 4 epochs.
mild=(--shift 0.05 --scale 0.9 1.15 --final_strength 1 --texture_prob 0.2 --light_prob 0.1 --jpeg_prob 0.1 --background_prob 0.05 --thing_prob 0.04)
python train.py "${late[@]}" "${roots[@]}" "${taught[@]}" "${mild[@]}" --rotation 8 --pretrained mean2.pdparams --epoch 2 --lr 0.0005 --seed 61 --output mild1
mean mean3.pdparams 0.5 mild1/model_1.pdparams 0.5 mean1.pdparams
python train.py "${late[@]}" "${roots[@]}" "${taught[@]}" "${mild[@]}" --rotation 12 --empty_share 0.12 --pretrained mean3.pdparams --epoch 8 --lr 0.0007 --seed 62 \
    --output mild2
# lite goes on alone, of 7 epochs the next may start after 2.
python train.py "${late[@]}" "${roots[@]}" "${mild[@]}" --rotation 12 --empty_share 0.12 --pretrained last3/model_7.pdparams --epoch 7 --size 160 \
    --lr 0.0007 --seed 63 --teacher selfie_segmentation.tflite --teacher_share 0.35 --output mild3
# The last with masks whose contours lie on the photos' edges (label.py --inset).
moved=(
    --data_root EG1800_clean/ EG1800_clean/ EG1800_hard/ Picsart_moved/ Picsart_moved/ Picsart_moved/ Picsart_moved_hard/ Picsart_moved_hard/
    People_moved/ Drafted_moved/
    --rotation 15 --scale 0.85 1.25 --shift 0.06 --final_strength 0.6 --texture_prob 0.3 --light_prob 0.2 --jpeg_prob 0.15
    --background_prob 0.08 --thing_prob 0.05 --empty_share 0.12 --teacher selfie_segmentation.tflite --teacher_share 0.25
)
python train.py "${late[@]}" "${moved[@]}" --taught Picsart_moved/ Picsart_moved_hard/ --pretrained mild2/model_3.pdparams --epoch 12 --lr 0.0008 --seed 71 \
    --output edges1
python train.py "${late[@]}" "${moved[@]}" --pretrained mild3/model_1.pdparams --epoch 9 --size 160 --lr 0.0008 --seed 72 --output edges2
python train.py "${late[@]}" "${moved[@]}" "${mild[@]}" --rotation 12 --taught Picsart_moved/ Picsart_moved_hard/ \
    --data_root EG1800_clean/ EG1800_clean/ EG1800_hard/ Picsart_moved/ Picsart_moved/ Picsart_moved/ Picsart_moved/ Picsart_moved_hard/ Picsart_moved_hard/ \
    Picsart_moved_hard/ People_moved/ Drafted_moved/ --pretrained edges1/model_6.pdparams --epoch 5 --lr 0.0007 --seed 81 --output edges3
# Two short ones to end with, with EG1800's photos four times.
last=(
    --data_root EG1800_clean/ EG1800_clean/ EG1800_clean/ EG1800_clean/ EG1800_hard/ Picsart_moved/ Picsart_moved/ Picsart_moved_hard/
    People_moved/ People_moved/ Drafted_moved/ --taught Picsart_moved/ Picsart_moved_hard/
)
mean mean4.pdparams 0.4 edges1/model_11.pdparams 0.3 edges3/model_3.pdparams 0.3 edges1/model_1.pdparams
python train.py "${late[@]}" "${moved[@]}" "${mild[@]}" --rotation 12 "${last[@]}" --pretrained mean4.pdparams --epoch 2 --lr 0.0004 --seed 91 --output end1
mean mean5.pdparams 0.8 edges3/model_4.pdparams 0.2 edges1/model_1.pdparams
python train.py "${late[@]}" "${moved[@]}" "${mild[@]}" --rotation 12 "${last[@]}" --empty_share 0.16 --pretrained mean5.pdparams --epoch 2 --lr 0.0004 --seed 92 \
    --output end2
mean shipped.pdparams 0.4 end1/model_1.pdparams 0.6 end2/model_1.pdparams
python evaluate.py --model_path shipped.pdparams --split val --data_root EG1800/ Picsart/ People/
python evaluate.py --model_path edges2/model_8.pdparams --split val --data_root EG1800/ Picsart/ People/  # lite, before INT8
