"""What stands on the pictures and on the console beside them, in each language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from hpcft.errors import HpcftError, UsageError
from hpcft.spec.types import Lang

LANGUAGES: tuple[Lang, ...] = get_args(Lang)

# In the order of LANGUAGES.
_TEXTS: dict[str, tuple[str, str, str, str]] = {
    # When there is no picture.
    "failed": (
        "⚠️  visualisation failed: {error}",
        "⚠️  視覺化失敗: {error}",
        "⚠️  可视化失败: {error}",
        "⚠️  시각화 실패: {error}",
    ),
    "kept": (
        "the training's results are kept: see its log history",
        "訓練結果已保存，請手動查看 log_history",
        "训练结果已保存，请手动查看 log_history",
        "학습 결과는 저장되었습니다. log_history를 직접 확인하세요",
    ),
    "nothing": (
        "⚠️ nothing to draw: there are no values",
        "⚠️ 沒有可繪製的指標",
        "⚠️ 没有可绘制的指标",
        "⚠️ 그릴 지표가 없습니다",
    ),
    "missing": ("not measured", "未測量", "未测量", "측정되지 않음"),
    "not_finite": (
        "{name} ({count} not finite)",
        "{name} ({count} 個非有限值)",
        "{name} ({count} 个非有限值)",
        "{name} (유한하지 않은 값 {count}개)",
    ),
    # Training.
    "training": ("Training", "訓練過程", "训练过程", "학습 과정"),
    "method_training": ("{method} training", "{method} 訓練過程", "{method} 训练过程", "{method} 학습 과정"),
    "training_loss": ("Training loss", "訓練損失", "训练损失", "학습 손실"),
    "train_series": ("training loss", "訓練損失", "训练损失", "학습 손실"),
    "eval_series": ("evaluation loss", "評估損失", "评估损失", "평가 손실"),
    "loss": ("Loss", "損失", "损失", "손실"),
    "step": ("Optimizer step", "優化器步數", "优化器步数", "옵티마이저 스텝"),
    "entry": ("Log entry", "日誌條目", "日志条目", "로그 항목"),
    "minimum": (
        "Min: {value:.4f}\nstep {step:g}",
        "最小: {value:.4f}\n第 {step:g} 步",
        "最小: {value:.4f}\n第 {step:g} 步",
        "최소: {value:.4f}\n스텝 {step:g}",
    ),
    "drawing_training": ("Pictures of the training", "訓練過程視覺化", "训练过程可视化", "학습 과정 시각화"),
    "curves_drawn": (
        "✅ training curves drawn",
        "✅ 訓練曲線已生成",
        "✅ 训练曲线已生成",
        "✅ 학습 곡선을 그렸습니다",
    ),
    "all_drawn": (
        "All pictures are in: {folder}",
        "所有視覺化圖表已保存至: {folder}",
        "所有可视化图表已保存至: {folder}",
        "모든 그림을 저장한 곳: {folder}",
    ),
    # Parameters.
    "distribution": ("Parameter distribution", "參數分佈", "参数分布", "파라미터 분포"),
    "distribution_drawn": (
        "✅ parameter distribution drawn",
        "✅ 參數分佈圖已生成",
        "✅ 参数分布图已生成",
        "✅ 파라미터 분포를 그렸습니다",
    ),
    "trainable": ("Trainable", "可訓練", "可训练", "학습 대상"),
    "frozen": ("Frozen", "凍結", "冻结", "고정"),
    "total": ("Total", "總參數", "总参数", "전체"),
    "millions": (
        "Parameters (millions)",
        "參數量 (百萬)",
        "参数量 (百万)",
        "파라미터 수 (백만)",
    ),
    "distribution_footer": (
        "Total: {total:,.2f}M | Trainable: {percent:.3f}%",
        "總參數: {total:,.2f}M | 可訓練: {percent:.3f}%",
        "总参数: {total:,.2f}M | 可训练: {percent:.3f}%",
        "전체: {total:,.2f}M | 학습 대상: {percent:.3f}%",
    ),
    # Comparison of methods.
    "comparison": ("PEFT methods compared", "PEFT 方法對比", "PEFT 方法对比", "PEFT 방법 비교"),
    "efficiency": ("Parameter efficiency", "參數效率", "参数效率", "파라미터 효율"),
    "trainable_params_%": (
        "Trainable parameters (%)",
        "可訓練參數 (%)",
        "可训练参数 (%)",
        "학습 파라미터 (%)",
    ),
    "params_%": ("Trainable parameters (%)", "可訓練參數 (%)", "可训练参数 (%)", "학습 파라미터 (%)"),
    "performance": ("Performance", "性能", "性能", "성능"),
    "accuracy": ("Accuracy", "準確率", "准确率", "정확도"),
    "training_time": ("Training time", "訓練時間", "训练时间", "학습 시간"),
    "seconds": ("Seconds", "秒", "秒", "초"),
    # Sizes.
    "sizes": ("{method} model sizes", "{method} 模型大小對比", "{method} 模型大小对比", "{method} 모델 크기 비교"),
    "size": ("Model size ({unit})", "模型大小 ({unit})", "模型大小 ({unit})", "모델 크기 ({unit})"),
    "adapter": ("{method} Adapter", "{method} Adapter", "{method} Adapter", "{method} 어댑터"),
    "merged": ("Merged Model", "Merged Model", "Merged Model", "병합 모델"),
    "base": (
        "Original Model (reference)",
        "Original Model (參考)",
        "Original Model (参考)",
        "원본 모델 (기준)",
    ),
    "sizes_caption": (
        "The {method} Adapter is {percent:.2f}% of the original model's size",
        "{method} Adapter 僅佔原模型大小的 {percent:.2f}%",
        "{method} Adapter 仅占原模型大小的 {percent:.2f}%",
        "{method} 어댑터는 원본 모델 크기의 {percent:.2f}%입니다",
    ),
    "adapter_size": (
        "✅ {method} Adapter: {size:.2f}{unit}",
        "✅ {method} Adapter: {size:.2f}{unit}",
        "✅ {method} Adapter: {size:.2f}{unit}",
        "✅ {method} 어댑터: {size:.2f}{unit}",
    ),
    "merged_size": (
        "✅ Merged model: {size:.2f}{unit}",
        "✅ 合併模型: {size:.2f}{unit}",
        "✅ 合并模型: {size:.2f}{unit}",
        "✅ 병합 모델: {size:.2f}{unit}",
    ),
    "size_efficiency": (
        "✅ Efficiency: the Adapter is {percent:.1f}%",
        "✅ 效率: Adapter 僅佔 {percent:.1f}%",
        "✅ 效率: Adapter 仅占 {percent:.1f}%",
        "✅ 효율: 어댑터는 {percent:.1f}%",
    ),
    # Adapters: several tasks on one base, and where they stand.
    "tasks": (
        "{method}: several tasks on one base",
        "{method} 多任務性能對比",
        "{method} 多任务性能对比",
        "{method} 다중 작업 성능 비교",
    ),
    "base_model": ("Base Model", "Base Model", "Base Model", "기본 모델"),
    "structure": ("{method} structure", "{method} 結構視覺化", "{method} 结构可视化", "{method} 구조 시각화"),
    "layer": ("Layer", "層", "层", "레이어"),
    "adapter_params": ("Adapter parameters", "Adapter 參數量", "Adapter 参数量", "어댑터 파라미터 수"),
    "no_adapter": ("no adapter", "無 Adapter", "无 Adapter", "어댑터 없음"),
    "adapter_drop": (
        "AdapterDrop: what is left",
        "AdapterDrop: 剩餘參數量",
        "AdapterDrop: 剩余参数量",
        "AdapterDrop: 남는 파라미터",
    ),
    "dropped_layers": (
        "Lowest layers without adapters",
        "移除 Adapter 的底層數",
        "移除 Adapter 的底层数",
        "어댑터를 뺀 하위 레이어 수",
    ),
    # Distillation.
    "student_size": (
        "model size: {teacher:.1f}MB → {student:.1f}MB",
        "模型大小: {teacher:.1f}MB → {student:.1f}MB",
        "模型大小: {teacher:.1f}MB → {student:.1f}MB",
        "모델 크기: {teacher:.1f}MB → {student:.1f}MB",
    ),
    # Inference.
    "inference": ("Inference benchmark", "推理性能對比", "推理性能对比", "추론 성능 비교"),
    "latency_ms": ("Latency (ms)", "延遲 (ms)", "延迟 (ms)", "지연 시간 (ms)"),
    "throughput": (
        "Throughput (tokens/s)",
        "吞吐量 (tokens/s)",
        "吞吐量 (tokens/s)",
        "처리량 (tokens/s)",
    ),
    "memory_gb": ("Peak memory (GB)", "記憶體峰值 (GB)", "显存峰值 (GB)", "최대 메모리 (GB)"),
    "inference_drawn": (
        "✅ inference benchmark drawn",
        "✅ 推理性能對比圖已生成",
        "✅ 推理性能对比图已生成",
        "✅ 추론 성능 비교를 그렸습니다",
    ),
    # Gradient norms. The groups are the modules' own names.
    "embed": ("Embed", "Embed", "Embed", "Embed"),
    "attention": ("Attention", "Attention", "Attention", "Attention"),
    "mlp": ("MLP", "MLP", "MLP", "MLP"),
    "lm_head": ("LM head", "LM head", "LM head", "LM head"),
    "total_norm": ("All trained", "全部可訓練參數", "全部可训练参数", "전체 학습 파라미터"),
    "combined": (
        "Attention + MLP (sum of both norms)",
        "Attention + MLP (兩者範數之和)",
        "Attention + MLP (两者范数之和)",
        "Attention + MLP (두 노름의 합)",
    ),
    "not_trained": ("not trained", "未訓練", "未训练", "학습되지 않음"),
    "norm": ("Gradient norm (L2)", "梯度範數 (L2)", "梯度范数 (L2)", "그래디언트 노름 (L2)"),
    "mean_norm": (
        "Mean gradient norm (L2)",
        "平均梯度範數 (L2)",
        "平均梯度范数 (L2)",
        "평균 그래디언트 노름 (L2)",
    ),
    "logarithmic": ("{name}, logarithmic", "{name}，對數尺度", "{name}，对数尺度", "{name}, 로그 눈금"),
    "component": ("Component", "模組", "模块", "구성 요소"),
    "gradients": ("Gradient norms", "梯度範數", "梯度范数", "그래디언트 노름"),
    "gradients_compared": (
        "Gradient norms compared",
        "梯度範數對比",
        "梯度范数对比",
        "그래디언트 노름 비교",
    ),
    "smoothed": (
        "bold: mean of {window} points, from point {window} on; thin: each point",
        "粗線: 自第 {window} 點起為 {window} 點平均; 細線: 原始值",
        "粗线: 自第 {window} 点起为 {window} 点平均; 细线: 原始值",
        "굵은 선: {window}번째 점부터 {window}개 점의 평균, 가는 선: 각 점",
    ),
    "layer_heatmap": (
        "Gradient norm of each layer",
        "各層梯度範數",
        "各层梯度范数",
        "레이어별 그래디언트 노름",
    ),
    "layer_comparison": (
        "Layers compared: mean over {count} steps",
        "各層比較: {count} 步平均",
        "各层比较: {count} 步平均",
        "레이어 비교: {count}개 스텝의 평균",
    ),
    "stacked": ("Stacked", "堆疊", "堆叠", "누적"),
    "side_by_side": ("Side by side", "並列", "并列", "나란히"),
    "evolution": (
        "How the layers' gradient norms move",
        "各層梯度範數的變化",
        "各层梯度范数的变化",
        "레이어별 그래디언트 노름의 변화",
    ),
    "phase": (
        "phase {number}: {trains}",
        "階段 {number}: {trains}",
        "阶段 {number}: {trains}",
        "{number}단계: {trains}",
    ),
    "gradients_3d": (
        "Gradient norm by layer and step",
        "各層各步的梯度範數",
        "各层各步的梯度范数",
        "레이어와 스텝별 그래디언트 노름",
    ),
    "stacked_3d": (
        "{low}, and MLP on top of it",
        "{low}，其上為 MLP",
        "{low}，其上为 MLP",
        "{low} 위에 MLP를 쌓음",
    ),
}


def known_language(name: str, where: str) -> Lang:
    """A language that was typed.

    Args:
        where: the option.

    Raises:
        UsageError: there are no texts in it.
    """
    found = next((lang for lang in LANGUAGES if lang == name), None)
    if found is None:
        raise UsageError(f"'{name[:40]}' is not one of {', '.join(LANGUAGES)}", where=where)
    return found


def text(key: str, lang: Lang = "en", **values: Any) -> str:
    """A text of the catalogue with its values put in.

    Raises:
        HpcftError: no such language.
    """
    return chosen(_TEXTS[key], lang).format(**values)


def chosen(texts: Sequence[str], lang: Lang) -> str:
    """That one of the same text in each of LANGUAGES which a language has.

    Raises:
        HpcftError: no such language.
    """
    if lang not in LANGUAGES:
        raise HpcftError(f"there are no texts in '{lang}'", where="lang", hint=f"one of: {', '.join(LANGUAGES)}")
    return texts[LANGUAGES.index(lang)]


def metric_label(name: str, lang: Lang = "en") -> str:
    """What a column of results is called: its text where the catalogue has one, else its own name."""
    return text(name, lang) if name in _TEXTS else name
